"""RMSNorm with its result quantized, for a product with a weight of 8 bits.

The norm is as rms_norm has it, the quantization as quantize_rows has it; between them nothing is
rounded.
"""

import torch
from torch import Tensor

from .gpu.interpreter import interpreting
from .quantize_rows import QuantizedRows, quantize_rows_reference
from .rms_norm import rms_norm_reference


def rms_norm_quantize(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> QuantizedRows:
    """Normalise the rows of `x` and quantize each.

    Args:
        x: [num_rows, dim], contiguous; float32, float16 or bfloat16.
        weight: [dim], dtype of x.
        dtype: float8_e4m3fn or int8.
    """
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import rms_norm_quantize as gpu

        return gpu.rms_norm_quantize(x, weight, eps, dtype)
    return rms_norm_quantize_reference(x, weight, eps, dtype)


def rms_norm_quantize_reference(
    x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> QuantizedRows:
    return quantize_rows_reference(rms_norm_reference(x.float(), weight, eps), dtype)
