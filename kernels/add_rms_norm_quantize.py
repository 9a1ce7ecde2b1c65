"""Add to the residual stream, RMSNorm of the sum, and its quantization, for products of 8 bits.

    residual += x        out = quantize_rows(rms_norm(residual))

Between them nothing is rounded.
"""

import torch
from torch import Tensor

from .gpu.interpreter import interpreting
from .quantize_rows import QuantizedRows, quantize_rows_reference
from .rms_norm import rms_norm_reference


def add_rms_norm_quantize(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> QuantizedRows:
    """Add `x` to `residual` in place, normalise the rows of the sum and quantize each.

    Args:
        x, residual: [num_rows, dim], contiguous; float32, float16 or bfloat16.
        weight: [dim], dtype of x.
        dtype: float8_e4m3fn or int8.
    """
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import add_rms_norm_quantize as gpu

        return gpu.add_rms_norm_quantize(x, residual, weight, eps, dtype)
    return add_rms_norm_quantize_reference(x, residual, weight, eps, dtype)


def add_rms_norm_quantize_reference(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> QuantizedRows:
    total = x.float() + residual.float()
    residual.copy_(total)
    return quantize_rows_reference(rms_norm_reference(total, weight, eps), dtype)
