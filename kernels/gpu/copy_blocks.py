"""Copies of cache blocks on a GPU: those of all layers in one launch."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization

# A block of 16 tokens and 8 heads of 128 is 32 KiB: a program copies it 8 KiB at a time, with two
# loads of 16 bytes a thread under way. Not yet measured.
_BLOCK = 2048
_NUM_WARPS = 8
_WORD_TYPES = (torch.int32, torch.int16, torch.int8)


def copy_blocks(kv_cache: Tensor, source_ids: Tensor, target_ids: Tensor) -> None:
    """Copy whole blocks in every plane, as kernels.copy_blocks does.

    Args:
        kv_cache: [num_planes, num_blocks, ...], contiguous: keys and values of each layer.
        source_ids, target_ids: int64 or int32 [num_copies]; no target is also a source. Pairs
            whose target is negative are padding.
    """
    assert kv_cache.is_contiguous() and source_ids.shape == target_ids.shape, source_ids.shape
    num_planes, num_blocks = kv_cache.shape[:2]
    words = _as_words(kv_cache.view(num_planes, num_blocks, -1))
    _copy_blocks_kernel[(len(source_ids), num_planes)](
        cache_ptr=words,
        source_ids_ptr=source_ids,
        target_ids_ptr=target_ids,
        num_blocks=num_blocks,
        block_words=words.shape[2],
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )


def _as_words(blocks: Tensor) -> Tensor:
    """Return a view as the largest whole numbers that a block consists of."""
    num_bytes = blocks.shape[2] * blocks.itemsize
    return blocks.view(next(word for word in _WORD_TYPES if num_bytes % word.itemsize == 0))


def aot_specializations() -> Iterator[Specialization]:
    for ids in ("*i64", "*i32"):
        signature = {
            "cache_ptr": "*i32",
            "source_ids_ptr": ids,
            "target_ids_ptr": ids,
            "num_blocks": "i32",
            "block_words": "i32:16",
        }
        yield Specialization(_copy_blocks_kernel, signature, {"BLOCK": _BLOCK}, _NUM_WARPS, 3)


# Both lists may be halves of one, whose second begins anywhere.
@triton.jit(do_not_specialize_on_alignment=["source_ids_ptr", "target_ids_ptr"])
def _copy_blocks_kernel(
    cache_ptr,
    source_ids_ptr,
    target_ids_ptr,
    num_blocks,
    block_words,
    BLOCK: tl.constexpr,
):
    source = tl.load(source_ids_ptr + tl.program_id(0)).to(tl.int64)
    target = tl.load(target_ids_ptr + tl.program_id(0)).to(tl.int64)
    plane = tl.program_id(1).to(tl.int64) * num_blocks
    source_ptr = cache_ptr + (plane + source) * block_words
    target_ptr = cache_ptr + (plane + target) * block_words
    for first in range(0, block_words, BLOCK):
        words = first + tl.arange(0, BLOCK)  # [BLOCK]
        is_copied = (words < block_words) & (target >= 0)
        copied = tl.load(source_ptr + words, mask=is_copied)
        tl.store(target_ptr + words, copied, mask=is_copied)
