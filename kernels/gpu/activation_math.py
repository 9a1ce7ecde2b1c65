"""The activation functions of the kernels that fuse one into something else."""

import triton
import triton.language as tl

ACTIVATIONS = ("silu", "gelu")


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    """Return SiLU of x, or GELU as its tanh formula has it; x is float32 of any shape."""
    tl.static_assert(ACTIVATION == "silu" or ACTIVATION == "gelu")
    if ACTIVATION == "silu":
        out = x * tl.sigmoid(x)
    else:
        # (1 + tanh(u)) / 2 = sigmoid(2u), with u = sqrt(2 / pi) * (x + 0.044715 * x ** 3).
        out = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    return out
