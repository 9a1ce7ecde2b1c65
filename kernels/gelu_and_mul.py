"""GELU and multiply: the gated activation of a GEGLU feed-forward layer.

    out = gelu(gate) · up        gelu(x) = x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))

Source: Shazeer, GLU Variants Improve Transformer (2020), with the tanh form of GELU (Hendrycks and
Gimpel, 2016).
"""

from torch import Tensor
from torch.nn import functional as F

from .gpu.interpreter import interpreting


def gelu_and_mul(gate_up: Tensor) -> Tensor:
    """Apply the activation to the first half of each row and multiply by the second.

    Args:
        gate_up: [num_rows, 2 * dim], contiguous; float32, float16 or bfloat16.
    Returns:
        [num_rows, dim], dtype of gate_up, computed in float32 and rounded once.
    """
    if gate_up.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import activation

        return activation.gelu_and_mul(gate_up)
    return gelu_and_mul_reference(gate_up)


def gelu_and_mul_reference(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (F.gelu(gate, approximate="tanh") * up).to(gate_up.dtype)
