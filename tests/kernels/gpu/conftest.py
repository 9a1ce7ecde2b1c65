"""The Triton side of the kernels: on a GPU, or without one in Triton's interpreter."""

import pytest
import torch

from tests.interpreted import mended_interpreter, pytest_configure, pytest_ignore_collect

__all__ = ["mended_interpreter", "pytest_configure", "pytest_ignore_collect"]


@pytest.fixture
def device() -> str:
    """Where the tensors of a test are."""
    return "cuda" if torch.cuda.is_available() else "cpu"
