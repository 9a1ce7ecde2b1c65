"""Linear layer with a weight of 4 bits and activations of 16: what is read of memory is a quarter.

    out = x · weightᵀ + bias

Source: AWQ (Lin et al., 2023), GPTQ (Frantar et al., 2022).
"""

from torch import Tensor

from .gpu.interpreter import interpreting
from .int4_weight import Int4Weight


def w4a16_linear(
    x: Tensor, weight: Int4Weight, bias: Tensor | None = None, arrivals: Tensor | None = None
) -> Tensor:
    """Multiply the rows of `x` by a weight of 4 bits.

    Products are exact, sums are float32: no weight is rounded to the dtype of `x`.

    Args:
        x: [num_tokens, in_features], contiguous; float16 or bfloat16.
        bias: [out_features], dtype of x.
        arrivals: int32 [gpu.tiles.MAX_SPLIT_TILES] of zeros, left as they were, for launches one
            after the other; without it a launch that needs some makes them.
    Returns:
        [num_tokens, out_features], dtype of x.
    """
    assert x.dim() == 2 and x.shape[1] == weight.in_features and x.is_contiguous(), x.shape
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import w4a16_linear as gpu

        return gpu.w4a16_linear(x, weight, bias, arrivals)
    return w4a16_linear_reference(x, weight, bias)


def w4a16_linear_reference(x: Tensor, weight: Int4Weight, bias: Tensor | None = None) -> Tensor:
    out = x.float() @ weight.dequantized().T
    return (out if bias is None else out + bias.float()).to(x.dtype)
