"""The C++ kernels as a ctypes library: which functions it has, and when there is none."""

import ctypes

import torch

# The codes by which the C++ side knows an element type (see vec.h).
DTYPES = {torch.float32: 0, torch.bfloat16: 1}


def load() -> ctypes.CDLL | None:
    return None


def load_for(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library if it exists and computes in `dtype`; None sends a kernel to its reference."""
    return load() if dtype in DTYPES else None
