"""How close a kernel must come to what is computed in double precision."""

import pytest
import torch
from torch import Tensor

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)

# What rounding explains, relative to the size of the numbers.
_TOLERANCE = {torch.float32: 2e-6, torch.float16: 2**-11, torch.bfloat16: 2**-8}


def assert_close(actual: Tensor, expected: Tensor, *, slack: float = 1.0) -> None:
    """Compare with the exact result; the tolerance is that of the actual dtype, times `slack`."""
    assert actual.shape == expected.shape
    expected = expected.double()
    error = (actual.double() - expected).abs()
    allowed = slack * _TOLERANCE[actual.dtype] * (expected.abs() + expected.square().mean().sqrt())
    assert (error <= allowed).all(), f"error {(error / allowed).max():.2f} times what is allowed"
