"""The KV cache: how many blocks fit into memory, and the one tensor that holds them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from octavo.kernels.kv_pages import KvPages, page_size
from octavo.startup import StartupError

from .memory import machine_bytes
from .models.config import ModelConfig

_DEFAULT_BYTES = 4 << 30
_DEFAULT_SHARE = 0.25
# Of a page of memory; what a processor fetches ahead by itself ends with one.
_ALIGNMENT = 4096


@dataclass(frozen=True, slots=True)
class KvCache:
    """Keys and values of all layers.

    Attributes:
        tensor: [num_layers, num_blocks, num_kv_heads, 2, page_size], see kernels/kv_pages.py.
        layers: the same memory, as each layer's attention takes it.
    """

    tensor: Tensor
    layers: tuple[KvPages, ...]

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes


def block_bytes(config: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
    """Return the memory of one block: keys and values of `block_size` tokens on every layer."""
    num_pages = 2 * config.num_layers * config.num_kv_heads
    return num_pages * page_size(block_size, config.head_dim, dtype) * dtype.itemsize


def default_kv_cache_bytes(weights_bytes: int) -> int:
    """Return the memory for the cache when nobody said: a quarter of what the weights leave.

    And at most 4 GiB: few CPUs read more in a step that anyone would wait for. It is a part of all
    memory, not of what happens to be free, so that a worker that is restarted has as many blocks.
    """
    left = max(machine_bytes() - weights_bytes, 0)
    return min(_DEFAULT_BYTES, int(left * _DEFAULT_SHARE))


def fitting_blocks(bytes_per_block: int, kv_cache_bytes: int) -> int:
    """Return how many blocks fit; raises StartupError if not even one does."""
    num_blocks = kv_cache_bytes // bytes_per_block
    if num_blocks < 1:
        raise StartupError(
            f"a KV cache of {kv_cache_bytes:,} bytes holds no block of {bytes_per_block:,} bytes;"
            " free memory or raise --kv-cache-memory-bytes."
        )
    return num_blocks


def check_kv_cache_fits(num_blocks: int, bytes_per_block: int, memory: int) -> None:
    """Raise StartupError for a cache that is larger than all memory, in bytes."""
    if (needed := num_blocks * bytes_per_block) > memory:
        raise StartupError(
            f"no memory for a KV cache of {num_blocks:,} blocks: it takes {needed / 1e9:,.1f} GB,"
            f" and there are {memory / 1e9:,.1f} GB."
            " Lower --kv-cache-memory-bytes or --num-gpu-blocks-override."
        )


def allocate_kv_cache(
    config: ModelConfig, num_blocks: int, block_size: int, dtype: torch.dtype
) -> KvCache:
    """Return a cache of zeros.

    numpy takes its zeros from calloc, so the system hands out a page of memory when it is first
    written, and start-up waits for none; `octavo plan` and a warning at the start say whether all
    of it will fit. Raises StartupError if there is not enough.
    """
    page = page_size(block_size, config.head_dim, dtype)
    shape = (config.num_layers, num_blocks, config.num_kv_heads, 2, page)
    num_bytes = math.prod(shape) * dtype.itemsize
    try:
        raw = torch.from_numpy(np.zeros(num_bytes + _ALIGNMENT, np.uint8))
    except MemoryError as error:
        raise StartupError(
            f"no memory for a KV cache of {num_blocks} blocks: {error}."
            " Lower --kv-cache-memory-bytes or --num-gpu-blocks-override."
        ) from error
    aligned = raw[-raw.data_ptr() % _ALIGNMENT :][:num_bytes]
    tensor = aligned.view(dtype).view(shape)
    layers = tuple(KvPages(layer, block_size, config.head_dim) for layer in tensor)
    return KvCache(tensor, layers)
