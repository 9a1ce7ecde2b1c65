"""Copy blocks: gives a sequence its own copy of a shared block before it writes into it."""

import torch
from torch import Tensor

from .cpu import library
from .gpu.interpreter import interpreting


def copy_blocks(kv_cache: Tensor, source_ids: Tensor, target_ids: Tensor) -> None:
    """Copy whole blocks, keys and values, in every layer.

    Args:
        kv_cache: [num_layers, num_blocks, ...], contiguous; where keys and values lie apart, each
            of the two counts as a layer.
        source_ids, target_ids: int64 [num_copies]; no target occurs twice or is also a source.
    """
    if kv_cache.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import copy_blocks as gpu

        return gpu.copy_blocks(kv_cache, source_ids, target_ids)
    cpu = library.load()
    if cpu is None:
        return copy_blocks_reference(kv_cache, source_ids, target_ids)
    assert kv_cache.is_contiguous()
    assert source_ids.dtype == target_ids.dtype == torch.int64
    assert source_ids.shape == target_ids.shape
    cpu.copy_blocks(
        kv_cache.data_ptr(),
        source_ids.data_ptr(),
        target_ids.data_ptr(),
        len(source_ids),
        *kv_cache.shape[:2],
        kv_cache[0, 0].nbytes,
    )


def copy_blocks_reference(kv_cache: Tensor, source_ids: Tensor, target_ids: Tensor) -> None:
    kv_cache[:, target_ids] = kv_cache[:, source_ids]
