"""Gated activations with their result quantized, for a product with a weight of 8 bits.

The activations are as silu_and_mul and gelu_and_mul have them, the quantization as quantize_rows
has it; between them nothing is rounded.
"""

import torch
from torch import Tensor

from .gelu_and_mul import gelu_and_mul_reference
from .gpu.interpreter import interpreting
from .quantize_rows import QuantizedRows, quantize_rows_reference
from .silu_and_mul import silu_and_mul_reference


def silu_and_mul_quantize(gate_up: Tensor, dtype: torch.dtype) -> QuantizedRows:
    """Apply SiLU to the first half of each row, multiply by the second and quantize.

    Args:
        gate_up: [num_rows, 2 * dim], contiguous; float32, float16 or bfloat16.
        dtype: float8_e4m3fn or int8.
    """
    if gate_up.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import activation_quantize as gpu

        return gpu.silu_and_mul_quantize(gate_up, dtype)
    return silu_and_mul_quantize_reference(gate_up, dtype)


def gelu_and_mul_quantize(gate_up: Tensor, dtype: torch.dtype) -> QuantizedRows:
    """The same with GELU, in its tanh form."""
    if gate_up.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import activation_quantize as gpu

        return gpu.gelu_and_mul_quantize(gate_up, dtype)
    return gelu_and_mul_quantize_reference(gate_up, dtype)


def silu_and_mul_quantize_reference(gate_up: Tensor, dtype: torch.dtype) -> QuantizedRows:
    return quantize_rows_reference(silu_and_mul_reference(gate_up.float()), dtype)


def gelu_and_mul_quantize_reference(gate_up: Tensor, dtype: torch.dtype) -> QuantizedRows:
    return quantize_rows_reference(gelu_and_mul_reference(gate_up.float()), dtype)
