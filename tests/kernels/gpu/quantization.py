"""How close rows that a kernel quantized must come to the exact numbers."""

import pytest
import torch
from torch import Tensor

QUANTIZED = pytest.mark.parametrize("quantized", [torch.float8_e4m3fn, torch.int8], ids=str)

# Half of the distance between neighbours: of 8 bits with a fraction of 3, relative to the number.
_FP8_ERROR = 2**-4
# Between the smallest of fp8, whose distance is the same everywhere.
_FP8_LEAST_ERROR = 2**-10
# What float32 adds to it.
_SLACK = 1e-4


def assert_quantized(values: Tensor, scales: Tensor, expected: Tensor) -> None:
    """Compare with the exact rows: scales by the largest number, values by half a step."""
    is_int = values.dtype == torch.int8
    largest = 127 if is_int else 448
    absmax = expected.abs().amax(dim=1)
    torch.testing.assert_close(scales.double(), absmax / largest, rtol=1e-5, atol=1e-20)
    steps = expected / scales.double()[:, None]
    error = (values.double() - steps).abs()
    allowed = 0.5 if is_int else (_FP8_ERROR * steps.abs()).clamp(min=_FP8_LEAST_ERROR)
    assert (error <= allowed + _SLACK * (1 + steps.abs() * 2**-4)).all(), error.max()
