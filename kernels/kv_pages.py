"""Where keys and values lie in the paged cache: as attention multiplies by them, without a copy.

    page of keys    [head_dim / unit, block_size, unit]
    page of values  [block_size / unit, head_dim, unit]

A unit is 4 bytes, what one multiply-add of a CPU takes: one float32, two bfloat16 or four int8.
Keys are transposed, so that a vector holds the same dimensions of 16 tokens; units of values join
neighbouring tokens. head_dim and block_size are rounded up to 16, the width of the widest vector.
All pages of a block lie together, for memory is read fastest in long stretches.

A page of int8 ends with a float32 for each token, what its bytes are multiplied by to be numbers:
for each token and head the largest magnitude / 127. Keys are stored 128 higher, without signs,
as the products of bytes want it.

Source: products of bytes with a scale for each token are SageAttention's (Zhang et al., 2024).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# What the scratch memory of the C++ kernels is made for.
MAX_HEAD_DIM = 256

_LANES = 16
_UNIT_BYTES = 4
# A tensor, for a number divided by one is rounded twice.
_LARGEST = torch.tensor(127.0)
# The inverse of what is smaller might overflow.
_SMALLEST = 1e-30
# What makes a byte of another 128 higher without its sign.
_SIGN = -128


@dataclass(frozen=True, slots=True)
class KvPages:
    """The cache of one layer.

    Attributes:
        tensor: [num_blocks, num_kv_heads, 2, page_size], keys before values, contiguous.
        block_size: tokens in a block.
        head_dim: of keys and values.
    """

    tensor: Tensor
    block_size: int
    head_dim: int

    @property
    def num_kv_heads(self) -> int:
        return self.tensor.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def write(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put tokens into their slots: int64 [num_tokens], block * block_size + offset.

        Args:
            keys, values: [num_tokens, num_kv_heads, head_dim].
        """
        block, lane, unit = slots // self.block_size, slots % self.block_size, self._unit
        if self._has_scales:
            keys, self._scales[block, :, 0, lane] = _quantized(keys)
            values, self._scales[block, :, 1, lane] = _quantized(values)
            keys = keys ^ _SIGN
        num_units = -(-self.head_dim // unit)
        keys = functional.pad(keys, (0, num_units * unit - self.head_dim))
        self._keys[block, lane, :, :num_units] = keys.reshape(len(keys), -1, num_units, unit)
        self._values[block, lane // unit, lane % unit, :, : self.head_dim] = values

    def read(self, blocks: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Return the first tokens of some blocks: two of [num_tokens, num_kv_heads, head_dim].

        Bytes come as what they stand for, in float32.
        """

        def first(by_lane: Tensor) -> Tensor:
            whole = by_lane[:, : self.block_size, :, : self.head_dim]
            return whole.flatten(0, 1)[:num_tokens]

        keys, values = (
            first(self._keys[blocks].flatten(3)),
            first(self._values[blocks].flatten(1, 2)),
        )
        if not self._has_scales:
            return keys, values
        scales = self._scales[blocks].permute(2, 0, 3, 1).unsqueeze(-1)
        key_scales, value_scales = map(first, scales)
        return (keys ^ _SIGN).float() * key_scales, values.float() * value_scales

    @property
    def _has_scales(self) -> bool:
        return self.dtype == torch.int8

    @property
    def _numbers(self) -> Tensor:
        """A view without the scales: [num_blocks, num_kv_heads, 2, ...]."""
        return self.tensor[..., : _padded(self.block_size) * _padded(self.head_dim)]

    @property
    def _scales(self) -> Tensor:
        """A view: float32 [num_blocks, num_kv_heads, 2, lane]."""
        return self.tensor[..., self._numbers.shape[-1] :].view(torch.float32)

    @property
    def _keys(self) -> Tensor:
        """A view: [num_blocks, lane, num_kv_heads, padded head_dim / unit, unit]."""
        shape = (_padded(self.head_dim) // self._unit, _padded(self.block_size), self._unit)
        return self._numbers[:, :, 0].view(*self.tensor.shape[:2], *shape).permute(0, 3, 1, 2, 4)

    @property
    def _values(self) -> Tensor:
        """A view: [num_blocks, lane / unit, lane % unit, num_kv_heads, padded head_dim]."""
        shape = (_padded(self.block_size) // self._unit, _padded(self.head_dim), self._unit)
        return self._numbers[:, :, 1].view(*self.tensor.shape[:2], *shape).permute(0, 2, 4, 1, 3)

    @property
    def _unit(self) -> int:
        return _UNIT_BYTES // self.dtype.itemsize


def page_size(block_size: int, head_dim: int, dtype: torch.dtype) -> int:
    """Return how many numbers the keys, or the values, of one block and KV head take.

    Of int8 each scale takes the place of four.
    """
    scale = torch.float32.itemsize if dtype == torch.int8 else 0
    return _padded(block_size) * (_padded(head_dim) + scale)


def _padded(size: int) -> int:
    return -(-size // _LANES) * _LANES


def _quantized(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 [..., head_dim], and float32 [...], what to multiply them by; NaN if not finite.

    The C++ kernel comes to the same bits.
    """
    largest = numbers.float().abs().amax(dim=-1)
    is_zero = largest < _SMALLEST
    inverse = torch.where(is_zero, 0.0, _LARGEST / largest)
    scales = torch.where(is_zero, 0.0, largest * (1 / _LARGEST) + (largest - largest))
    whole = (numbers.float() * inverse.unsqueeze(-1)).round()
    return whole.nan_to_num().to(torch.int8), scales
