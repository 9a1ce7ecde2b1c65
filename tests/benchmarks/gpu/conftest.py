"""The table of kernels: on a GPU, or without one in Triton's interpreter."""

from tests.interpreted import mended_interpreter, pytest_configure, pytest_ignore_collect

__all__ = ["mended_interpreter", "pytest_configure", "pytest_ignore_collect"]
