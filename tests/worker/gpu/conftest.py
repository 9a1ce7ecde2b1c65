"""The worker on a GPU: on one, or without one with its kernels in Triton's interpreter."""

from tests.interpreted import mended_interpreter, pytest_configure, pytest_ignore_collect

__all__ = ["mended_interpreter", "pytest_configure", "pytest_ignore_collect"]
