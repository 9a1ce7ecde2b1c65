"""The paged cache of one layer as a GPU has it: whole tokens, one after another, in each block.

    keys, values    [num_blocks, block_size, num_kv_heads, head_dim] each

A tile of a block is then a matrix that tensor cores take as it lies, and a token is written as one
stretch of memory. On a CPU another order pays, see kv_pages.py.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KvBlocks:
    """The cache of one layer.

    Attributes:
        k_cache, v_cache: [num_blocks, block_size, num_kv_heads, head_dim]; the model's dtype, or
            float8_e4m3fn.
        k_scale, v_scale: what a stored number is multiplied by to be the model's: of 8 bits, which
            reach no further than 448; 1 otherwise.
    """

    k_cache: Tensor
    v_cache: Tensor
    k_scale: float = 1.0
    v_scale: float = 1.0

    @property
    def block_size(self) -> int:
        return self.k_cache.shape[1]

    @property
    def num_kv_heads(self) -> int:
        return self.k_cache.shape[2]

    @property
    def head_dim(self) -> int:
        return self.k_cache.shape[3]

    @property
    def dtype(self) -> torch.dtype:
        return self.k_cache.dtype

    def write(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put tokens into their slots: int64 [num_tokens], block * block_size + offset.

        Nothing is written for a slot below 0: those tokens only fill a batch up.

        Args:
            keys, values: [num_tokens, num_kv_heads, head_dim].
        """
        is_kept = slots >= 0
        block, offset = slots[is_kept] // self.block_size, slots[is_kept] % self.block_size
        self.k_cache[block, offset] = _stored(keys[is_kept], self.k_scale, self.dtype)
        self.v_cache[block, offset] = _stored(values[is_kept], self.v_scale, self.dtype)

    def read(self, blocks: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """Return the first tokens of some blocks: two of [num_tokens, num_kv_heads, head_dim].

        Numbers of 8 bits come as what they stand for, in float32.
        """
        keys = self.k_cache[blocks].flatten(0, 1)[:num_tokens]
        values = self.v_cache[blocks].flatten(0, 1)[:num_tokens]
        if self.dtype != torch.float8_e4m3fn:
            return keys, values
        return keys.float() * self.k_scale, values.float() * self.v_scale


def _stored(numbers: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Numbers as the cache keeps them; what 8 bits do not reach becomes their largest."""
    if dtype != torch.float8_e4m3fn:
        return numbers.to(dtype)
    largest = torch.finfo(dtype).max
    return (numbers.float() / scale).clamp(-largest, largest).to(dtype)
