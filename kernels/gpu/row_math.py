"""What several kernels compute of rows that they hold whole: the norm, the quantized form."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl


class QuantizedType(NamedTuple):
    """What an activation is quantized to: Triton's type, its name in a signature, its maximum."""

    triton: Any
    name: str
    largest: float


QUANTIZED_TYPES = {
    torch.float8_e4m3fn: QuantizedType(tl.float8e4nv, "fp8e4nv", 448.0),
    torch.int8: QuantizedType(tl.int8, "i8", 127.0),
}


@triton.jit
def rms_normalized(rows, weight, eps, num_columns):
    """Return rows of unit root mean square, times the weight.

    Args:
        rows: float32 [ROWS, BLOCK], zero past num_columns.
        weight: float32 [BLOCK].
    """
    mean_square = tl.sum(rows * rows, axis=1) / num_columns  # [ROWS]
    return rows * tl.rsqrt(mean_square + eps)[:, None] * weight[None, :]


@triton.jit
def quantized(rows, LARGEST: tl.constexpr, TYPE: tl.constexpr):
    """Return rows as numbers up to LARGEST, and the scale of each row.

    Args:
        rows: float32 [ROWS, BLOCK], zero where there is nothing.
    """
    # A row of zeros has a scale too, smaller than any that matters.
    absmax = tl.maximum(tl.max(tl.abs(rows), axis=1), 1e-20)  # [ROWS]
    values = rows * (LARGEST / absmax)[:, None]
    if TYPE == tl.int8:
        # Floats of this size have no digits behind the point: the sum is rounded, half to even.
        values = (values + 12582912.0) - 12582912.0
    return values.to(TYPE), absmax / LARGEST
