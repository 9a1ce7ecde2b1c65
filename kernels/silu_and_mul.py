"""SiLU and multiply: the gated activation of a SwiGLU feed-forward layer.

    out = gate · sigmoid(gate) · up

Source: Shazeer, GLU Variants Improve Transformer (2020).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .cpu import library
from .gpu.interpreter import interpreting


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """Apply the activation to the first half of each row and multiply by the second.

    Args:
        gate_up: [num_rows, 2 * dim], contiguous; float32, bfloat16 or float16.
    Returns:
        [num_rows, dim], dtype of gate_up, computed in float32 and rounded once.
    """
    if gate_up.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import activation as gpu

        return gpu.silu_and_mul(gate_up)
    cpu = library.load_for(gate_up.dtype)
    if cpu is None:
        return silu_and_mul_reference(gate_up)
    assert gate_up.dim() == 2 and gate_up.is_contiguous(), gate_up.shape
    num_rows, width = gate_up.shape
    out = torch.empty(num_rows, width // 2, dtype=gate_up.dtype)
    cpu.silu_and_mul(
        gate_up.data_ptr(), out.data_ptr(), num_rows, width // 2, library.DTYPES[gate_up.dtype]
    )
    return out


def silu_and_mul_reference(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (F.silu(gate) * up).to(gate_up.dtype)
