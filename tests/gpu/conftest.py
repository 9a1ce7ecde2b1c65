"""What the tests on a GPU share: the device, or its absence, and the same random numbers."""

import pytest
import torch


@pytest.fixture
def cuda() -> str:
    """The device's name for torch; a machine without one has nothing to test here."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)
