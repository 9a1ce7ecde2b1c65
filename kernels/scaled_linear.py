"""Linear layer of 8-bit numbers, whose scales are applied to the sums of their products.

    out[t, i] = x_scales[t] * weight_scales[i] * Σ over k of x[t, k] * weight[i, k] + bias[i]

With blocks the scales are of 128 inputs, those of the weight also of 128 outputs:

    out[t, i] = Σ over blocks b of x_scales[b, t] * weight_scales[i / 128, b] * Σ over k in b of …

Sources: LLM.int8() (Dettmers et al., 2022), FP8 Formats for Deep Learning (Micikevicius et al.,
2022); for the blocks DeepSeek-V3 (2024).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .gpu.interpreter import interpreting

SCALE_BLOCK_SIZE = 128


@dataclass(frozen=True, slots=True)
class ScaledWeight:
    """A weight of [out_features, in_features], float8_e4m3fn or int8.

    Attributes:
        values: [out_features, in_features], contiguous.
        scales: float32: [1] for the whole weight, [out_features], or, for blocks of float8_e4m3fn,
            [ceil(out_features / 128), ceil(in_features / 128)], contiguous.
    """

    values: Tensor
    scales: Tensor

    @property
    def has_blocks(self) -> bool:
        return self.scales.dim() == 2

    def dequantized(self) -> Tensor:
        """Return what the numbers stand for, float32 [out_features, in_features]."""
        out_features, in_features = self.values.shape
        scales = self.scales if self.has_blocks else self.scales[:, None]
        if self.has_blocks:
            scales = scales.repeat_interleave(SCALE_BLOCK_SIZE, dim=0)[:out_features]
            scales = scales.repeat_interleave(SCALE_BLOCK_SIZE, dim=1)[:, :in_features]
        return self.values.float() * scales


def scaled_linear(
    x: Tensor,
    x_scales: Tensor,
    weight: ScaledWeight,
    out_dtype: torch.dtype,
    bias: Tensor | None = None,
    arrivals: Tensor | None = None,
) -> Tensor:
    """Multiply the rows of `x` by a weight of 8-bit numbers.

    Args:
        x: [num_tokens, in_features], contiguous, dtype of the weight's values.
        x_scales: float32: [num_tokens], or [1] for all of them; where the weight has blocks
            [ceil(in_features / 128), num_tokens], contiguous.
        out_dtype: float16 or bfloat16, or float32 for the sums unrounded.
        bias: [out_features], of out_dtype.
        arrivals: int32 [gpu.tiles.MAX_SPLIT_TILES] of zeros, left as they were, for launches one
            after the other; without it a launch that needs some makes them.
    Returns:
        [num_tokens, out_features] of out_dtype.
    """
    _check(x, x_scales, weight)
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import scaled_linear as gpu

        return gpu.scaled_linear(x, x_scales, weight, out_dtype, bias, arrivals)
    return scaled_linear_reference(x, x_scales, weight, out_dtype, bias)


def scaled_linear_reference(
    x: Tensor,
    x_scales: Tensor,
    weight: ScaledWeight,
    out_dtype: torch.dtype,
    bias: Tensor | None = None,
) -> Tensor:
    if weight.has_blocks:
        x_scales = x_scales.T.repeat_interleave(SCALE_BLOCK_SIZE, dim=1)[:, : x.shape[1]]
    else:
        x_scales = x_scales[:, None]
    out = (x.float() * x_scales) @ weight.dequantized().T
    return (out if bias is None else out + bias.float()).to(out_dtype)


def _check(x: Tensor, x_scales: Tensor, weight: ScaledWeight) -> None:
    out_features, in_features = weight.values.shape
    assert x.dim() == 2 and x.shape[1] == in_features, x.shape
    assert x.dtype == weight.values.dtype in (torch.float8_e4m3fn, torch.int8), x.dtype
    assert x.is_contiguous() and weight.values.is_contiguous()
    assert x_scales.dtype == weight.scales.dtype == torch.float32
    if weight.has_blocks:
        num_blocks = -(-in_features // SCALE_BLOCK_SIZE)
        assert x.dtype == torch.float8_e4m3fn
        assert x_scales.shape == (num_blocks, len(x)) and x_scales.is_contiguous(), x_scales.shape
        expected = (-(-out_features // SCALE_BLOCK_SIZE), num_blocks)
        assert weight.scales.shape == expected and weight.scales.is_contiguous()
    else:
        assert x_scales.shape in ((len(x),), (1,)), x_scales.shape
        assert weight.scales.shape in ((out_features,), (1,)), weight.scales.shape
