"""What several kernels compute of rows that they hold whole: the norm, the quantized form."""

import triton
import triton.language as tl


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
    """Return rows as numbers up to LARGEST, and the scale of each row; NaN if one is not finite.

    Args:
        rows: float32 [ROWS, BLOCK], zero where there is nothing.
    """
    # A row of zeros has a scale too, smaller than any that matters.
    absmax = tl.maximum(tl.max(tl.abs(rows), axis=1), 1e-20)  # [ROWS]
    values = rows * (LARGEST / absmax)[:, None]
    if TYPE == tl.int8:
        # Floats of this size have no digits behind the point: the sum is rounded, half to even.
        values = (values + 12582912.0) - 12582912.0
    # A maximum does not tell of NaN, nor do whole numbers.
    return values.to(TYPE), absmax / LARGEST + tl.sum(rows * 0.0, axis=1)
