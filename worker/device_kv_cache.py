"""The KV cache on a device: its one tensor, and what each layer has of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.kernels.kv_blocks import KvBlocks
from octavo.startup import StartupError

from .models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class DeviceKvCache:
    """Keys and values of all layers.

    Attributes:
        tensor: [num_layers, 2, num_blocks, block_size, num_kv_heads, head_dim], keys before values.
        layers: the same memory, as each layer's attention takes it.
    """

    tensor: Tensor
    layers: tuple[KvBlocks, ...]

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes

    @property
    def planes(self) -> Tensor:
        """The cache as copies of blocks see it: keys and values of each layer, one plane each."""
        return self.tensor.flatten(0, 1)


def device_block_bytes(config: ModelConfig, block_size: int, dtype: torch.dtype) -> int:
    """Return the memory of one block: keys and values of `block_size` tokens on every layer."""
    num_heads = 2 * config.num_layers * config.num_kv_heads
    return num_heads * block_size * config.head_dim * dtype.itemsize


def allocate_device_kv_cache(
    config: ModelConfig,
    num_blocks: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> DeviceKvCache:
    """Return a cache of zeros; raises StartupError if there is not enough memory."""
    shape = (config.num_layers, 2, num_blocks, block_size, config.num_kv_heads, config.head_dim)
    try:
        tensor = torch.zeros(shape, dtype=dtype, device=device)
    except (torch.OutOfMemoryError, RuntimeError) as error:  # The latter is the CPU allocator's.
        raise StartupError(
            f"no memory for a KV cache of {num_blocks} blocks: {error}."
            " Lower --kv-cache-memory-bytes or --num-gpu-blocks-override."
        ) from error
    return DeviceKvCache(tensor, tuple(KvBlocks(keys, values) for keys, values in tensor))
