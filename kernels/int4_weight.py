"""Weights of 4 bits in one layout, whatever checkpoint they come from.

    weight[i, k] = scales[g, i] * (values[i, k] - zero_points[g, i]),   g the group that k is in

The inputs lie in blocks of 128, so that a tile of a block is one stretch of memory. Of a block and
an output, 32 words of 16 bits hold 128 values. A shift and a mask make of all words of a tile at
once numbers of 16 bits, of 32 inputs that are neighbours: with the exponent of 128, or 1024, the
4 bits are bfloat16s, or float16s, and no number is converted.

Source of that: Kim et al., Who Says Elephants Can't Run (2022); Marlin (Frantar et al., 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_SIZE = 128

_WORDS_PER_BLOCK = 32
_ZERO_POINT_BITS = 31


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """A weight of [out_features, in_features].

    Attributes:
        words: int16 [num_blocks, out_features, 32]. Of word j the 4 bits from 4 * p on are input
            32 * p + j of the block. Where the inputs end inside the last block, the rest is 0.
        scales_and_zeros: int32 [num_groups, out_features]: the bits of a float32 scale, the last
            five of them replaced by the zero point.
        group_size: neighbouring inputs that share a scale: 32, 64, or a multiple of 128.
        permutation: int64 [in_features]: the inputs in the order in which the weight has them;
            None where that is their own.
    """

    words: Tensor
    scales_and_zeros: Tensor
    group_size: int
    in_features: int
    permutation: Tensor | None = None

    @property
    def out_features(self) -> int:
        return self.words.shape[1]

    def dequantized(self) -> Tensor:
        """Return what the numbers stand for, float32 [out_features, in_features]."""
        scales = (self.scales_and_zeros & ~_ZERO_POINT_BITS).view(torch.float32)
        zero_points = self.scales_and_zeros & _ZERO_POINT_BITS
        groups = torch.arange(self.in_features, device=self.words.device) // self.group_size
        weight = ((self._values() - zero_points[groups].T) * scales[groups].T).contiguous()
        if self.permutation is None:
            return weight
        return torch.empty_like(weight).index_copy_(1, self.permutation, weight)

    def _values(self) -> Tensor:
        """Return the 4-bit numbers, int32 [out_features, in_features], as the weight has them."""
        parts = self.words.int()[..., None] >> _shifts(self.words.device) & 15
        values = parts.permute(1, 0, 3, 2).reshape(self.out_features, -1)
        return values[:, : self.in_features]


def pack_int4_weight(
    values: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    group_size: int,
    permutation: Tensor | None = None,
) -> Int4Weight:
    """Repack a weight, on the device that it is on.

    Args:
        values: uint8 [out_features, in_features], below 16.
        scales: float16, bfloat16 or float32 [num_groups, out_features]; of a float32 the last five
            bits are lost.
        zero_points: below 32, [num_groups, out_features].
        group_size: neighbouring inputs that share a scale, or -1: all of them.
        permutation: int64 [in_features], the inputs in the order of the values' columns.
    Raises:
        ValueError: no kernel multiplies by groups of this size.
    """
    out_features, in_features = values.shape
    num_blocks = -(-in_features // BLOCK_SIZE)
    if not is_group_size(group_size):
        raise ValueError(
            f"4-bit weights in groups of {group_size} inputs are not supported: "
            "quantize in groups of 32, 64, 128 or a multiple of 128, or with one group (-1)"
        )
    if group_size == -1:
        group_size = num_blocks * BLOCK_SIZE
    padded = F.pad(values, (0, num_blocks * BLOCK_SIZE - in_features)).int()
    parts = padded.view(out_features, num_blocks, -1, _WORDS_PER_BLOCK).permute(1, 0, 3, 2)
    words = (parts << _shifts(values.device)).sum(dim=3).to(torch.int16)
    bits = scales.float().view(torch.int32) & ~_ZERO_POINT_BITS | zero_points.int()
    # Groups that end behind the last input: a kernel reads their scales.
    extra = -(-num_blocks * BLOCK_SIZE // group_size) - len(bits)
    return Int4Weight(words, F.pad(bits, (0, 0, 0, extra)), group_size, in_features, permutation)


def is_group_size(group_size: int) -> bool:
    """Say whether weights in such groups can be packed; -1 is all inputs."""
    return group_size in (-1, 32, 64) or (group_size > 0 and group_size % BLOCK_SIZE == 0)


def int4_weight_bytes(out_features: int, in_features: int, group_size: int) -> int:
    """Return the memory of a packed weight; `group_size` as pack_int4_weight takes it."""
    num_blocks = -(-in_features // BLOCK_SIZE)
    num_groups = 1 if group_size == -1 else -(-num_blocks * BLOCK_SIZE // group_size)
    words_bytes = num_blocks * _WORDS_PER_BLOCK * torch.int16.itemsize
    return out_features * (words_bytes + num_groups * torch.int32.itemsize)


def stack_int4_weights(parts: Sequence[Int4Weight]) -> Int4Weight:
    """Put the outputs of weights of the same inputs below each other, as q, k and v are one layer.

    Raises:
        ValueError: the inputs are in other groups, or in another order.
    """
    first = parts[0]
    for part in parts[1:]:
        if (part.in_features, part.group_size) != (first.in_features, first.group_size):
            raise ValueError("4-bit weights in different groups cannot be one layer")
        if not _same(part.permutation, first.permutation):
            raise ValueError(
                "4-bit weights whose inputs are in different orders cannot be one layer"
            )
    return Int4Weight(
        torch.cat([part.words for part in parts], dim=1),
        torch.cat([part.scales_and_zeros for part in parts], dim=1),
        first.group_size,
        first.in_features,
        first.permutation,
    )


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(0, 16, 4, dtype=torch.int32, device=device)


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))
