"""What several kernels do with rows that they hold whole: find them, add, normalise, quantize."""

import triton
import triton.language as tl


@triton.jit
def tile_of_rows(num_rows, dim, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Return which rows of [num_rows, dim] a program holds.

    Returns:
        rows [ROWS] and columns [BLOCK], where they are [ROWS, BLOCK], and which of these exist.
    """
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    is_inside = (rows < num_rows)[:, None] & (columns < dim)[None, :]
    return rows, columns, rows[:, None] * dim + columns[None, :], is_inside


@triton.jit
def added_to_residual(x_ptrs, residual_ptrs, is_inside):
    """Return the float32 sum of both, which replaces the residual."""
    x = tl.load(x_ptrs, mask=is_inside, other=0.0).to(tl.float32)
    total = x + tl.load(residual_ptrs, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(residual_ptrs, total.to(residual_ptrs.dtype.element_ty), mask=is_inside)
    return total


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
def store_quantized(
    x, values_ptr, scales_ptr, num_rows, dim, LARGEST: tl.constexpr, TYPE: tl.constexpr
):
    """Store a program's rows as numbers up to LARGEST, and a scale of each; NaN if not all finite.

    Args:
        x: float32 [ROWS, BLOCK], zero where there is nothing.
        values_ptr: TYPE [num_rows, dim].
        scales_ptr: float32 [num_rows].
    """
    rows, _, offsets, is_inside = tile_of_rows(num_rows, dim, x.shape[0], x.shape[1])
    # A row of zeros has a scale too, smaller than any that matters.
    absmax = tl.maximum(tl.max(tl.abs(x), axis=1), 1e-20)  # [ROWS]
    values = x * (LARGEST / absmax)[:, None]
    if TYPE == tl.int8:
        # Floats of this size have no digits behind the point: the sum is rounded, half to even.
        values = (values + 12582912.0) - 12582912.0
    # A maximum does not tell of NaN, nor do whole numbers.
    scales = absmax / LARGEST + tl.sum(x * 0.0, axis=1)
    tl.store(values_ptr + offsets, values.to(TYPE), mask=is_inside)
    tl.store(scales_ptr + rows, scales, mask=rows < num_rows)
