"""Where keys and values lie in the paged cache: as attention multiplies by them, without a copy.

    page of keys    [head_dim / unit, block_size, unit]
    page of values  [block_size / unit, head_dim, unit]

A unit is 4 bytes, what one multiply-add of a CPU takes: one float32 or two bfloat16. Keys are
transposed, so that a vector holds the same dimensions of 16 tokens; units of values pair up
neighbouring tokens. head_dim and block_size are rounded up to 16, the width of the widest vector.
All pages of a block lie together, for memory is read fastest in long stretches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# What the scratch memory of the C++ kernels is made for.
MAX_HEAD_DIM = 256

_LANES = 16
_UNIT_BYTES = 4


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
        num_units = self.head_dim // unit
        self._keys[block, lane, :, :num_units] = keys.reshape(len(keys), -1, num_units, unit)
        self._values[block, lane // unit, lane % unit, :, : self.head_dim] = values

    def read(self, blocks: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Return the first tokens of some blocks: two of [num_tokens, num_kv_heads, head_dim]."""

        def first(by_lane: Tensor) -> Tensor:
            whole = by_lane[:, : self.block_size, :, : self.head_dim]
            return whole.flatten(0, 1)[:num_tokens]

        return first(self._keys[blocks].flatten(3)), first(self._values[blocks].flatten(1, 2))

    @property
    def _keys(self) -> Tensor:
        """A view: [num_blocks, lane, num_kv_heads, padded head_dim / unit, unit]."""
        shape = (_padded(self.head_dim) // self._unit, _padded(self.block_size), self._unit)
        return self.tensor[:, :, 0].view(*self.tensor.shape[:2], *shape).permute(0, 3, 1, 2, 4)

    @property
    def _values(self) -> Tensor:
        """A view: [num_blocks, lane / unit, lane % unit, num_kv_heads, padded head_dim]."""
        shape = (_padded(self.block_size) // self._unit, _padded(self.head_dim), self._unit)
        return self.tensor[:, :, 1].view(*self.tensor.shape[:2], *shape).permute(0, 2, 4, 1, 3)

    @property
    def _unit(self) -> int:
        return _UNIT_BYTES // self.dtype.itemsize


def page_size(block_size: int, head_dim: int) -> int:
    """Return how many numbers the keys, or the values, of one block and KV head take."""
    return _padded(block_size) * _padded(head_dim)


def _padded(size: int) -> int:
    return -(-size // _LANES) * _LANES
