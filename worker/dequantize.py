"""Turns the weights of a GGUF file into floating point, bit for bit as ggml defines each type.

A block is 32 weights: Q8_0 `d * q`, Q4_0 `d * (q - 8)`, Q4_1 `d * q + m`, with d and m in half
precision; of 16 bytes of 4-bit numbers, the low halves are the first 16 weights. Of the K types it
is 256: Q4_K `(d * s) * q - (e * n)` with s and n for each 32, Q6_K `(d * s) * (q - 32)` with s for
each 16, d and e in half precision; of 32 bytes of 4-bit numbers, the low halves are the first 32.
Types: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from collections.abc import Callable, Mapping

import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

# The work goes over pieces of this many blocks, so that what lies between the steps stays in the
# second-level cache.
_PIECE_BLOCKS = 4096


def dequantize(raw: Tensor, kind: GGMLQuantizationType, dtype: torch.dtype) -> Tensor:
    """Return the weights of `raw`, uint8 [num_bytes], as `dtype` [num_weights].

    They are computed in float32 and rounded once. `kind` is one of SUPPORTED_TYPES.
    """
    if (float_dtype := _FLOAT_TYPES.get(kind)) is not None:
        return raw.view(float_dtype).to(dtype)
    block_weights, block_bytes = GGML_QUANT_SIZES[kind]
    blocks = raw.view(-1, block_bytes)
    weights = torch.empty(len(blocks), block_weights, dtype=dtype)
    expand = _BLOCK_TYPES[kind]
    for start in range(0, len(blocks), _PIECE_BLOCKS):
        piece = slice(start, start + _PIECE_BLOCKS)
        expand(blocks[piece], weights[piece])
    return weights.view(-1)


def _expand_q8_0(blocks: Tensor, weights: Tensor) -> None:
    weights.copy_(blocks[:, 2:].view(torch.int8).float() * _half(blocks, 0))


def _expand_q4_0(blocks: Tensor, weights: Tensor) -> None:
    weights.copy_((_nibbles(blocks[:, 2:]) - 8) * _half(blocks, 0))


def _expand_q4_1(blocks: Tensor, weights: Tensor) -> None:
    # Two operations: one that fused them would round once where ggml rounds twice.
    weights.copy_((_nibbles(blocks[:, 4:]) * _half(blocks, 0)).add_(_half(blocks, 2)))


def _expand_q4_k(blocks: Tensor, weights: Tensor) -> None:
    scales, minimums = q4_k_scales(blocks)
    numbers = split_halves(blocks[:, 16:].reshape(-1, 4, 32)).view(-1, 8, 32)
    weights.copy_((scales[:, :, None] * numbers).sub_(minimums[:, :, None]).flatten(1))


def _expand_q6_k(blocks: Tensor, weights: Tensor) -> None:
    # Of each half of a block, the 4 lower bits in 64 bytes, and the 2 upper ones in 32.
    lower = split_halves(blocks[:, :128].reshape(-1, 2, 64)).view(-1, 2, 4, 32)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]
    upper = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    numbers = (lower | upper << 4).view(-1, 16, 16).float() - 32
    scales = blocks[:, 192:208].view(torch.int8).float() * _half(blocks, 208)
    weights.copy_((scales[:, :, None] * numbers).flatten(1))


def q4_k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return what numbers are multiplied by, and what is then taken off: float32 [num_blocks, 8].

    The two numbers of 6 bits for the first 4 groups are the low bits of 8 bytes; those for the last
    4 groups have their lower bits in 4 bytes more, and their upper ones in what those 8 have left.
    """
    first, second, third = blocks[:, 4:16].reshape(-1, 3, 4).unbind(1)
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), dim=1)
    minimums = torch.cat((second & 63, third >> 4 | second >> 6 << 4), dim=1)
    return scales * _half(blocks, 0), minimums * _half(blocks, 2)


def split_halves(packed: Tensor) -> Tensor:
    """Return the lower halves of uint8 [..., n], then the upper ones, [..., 2 * n]."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _half(blocks: Tensor, offset: int) -> Tensor:
    """Return the half-precision number at byte `offset` of each block, float32 [num_blocks, 1]."""
    return blocks[:, offset : offset + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Return the 4-bit numbers of uint8 [num_blocks, 16] as float32 [num_blocks, 32]."""
    return split_halves(packed).float()


_FLOAT_TYPES: Mapping[GGMLQuantizationType, torch.dtype] = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}

_BLOCK_TYPES: Mapping[GGMLQuantizationType, Callable[[Tensor, Tensor], None]] = {
    GGMLQuantizationType.Q8_0: _expand_q8_0,
    GGMLQuantizationType.Q4_0: _expand_q4_0,
    GGMLQuantizationType.Q4_1: _expand_q4_1,
    GGMLQuantizationType.Q4_K: _expand_q4_k,
    GGMLQuantizationType.Q6_K: _expand_q6_k,
}

SUPPORTED_TYPES = (*_FLOAT_TYPES, *_BLOCK_TYPES)
