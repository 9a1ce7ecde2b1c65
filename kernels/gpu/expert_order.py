"""Sorts the pairs of token and expert by expert, and cuts them into tiles of one expert each.

In one launch: each expert's program looks at all pairs, counts those of the experts before it, and
writes down its own. That reads every pair once for each expert, which is little beside what is
computed for a pair; in return there is no chain of kernels, no atomic, and the order is that of the
pairs, the same every time.

Where tiles are so many that counting them exactly is not worth it, expert e's begin at
(pairs before e) // tile_size + e. That leaves room for each rounded up, some of it empty, and an
expert's program knows it without the counts of the others.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization, powers_of_2

# Pairs up to which tiles are counted exactly, and that a program looks at together: 8 for each of
# 128 threads. Not yet measured.
_BLOCK = 1024
_NUM_WARPS = 4


class ExpertOrder(NamedTuple):
    """Pairs by expert.

    Attributes:
        pairs: int32 [num_pairs], pair t * top_k + j being token t's j-th expert. Those without an
            expert come first, and are not written.
        tiles: int32 [num_tiles, 3]: the expert of a tile and the first and last + 1 of its places
            in `pairs`; the expert is -1 where a tile is empty.
    """

    pairs: Tensor
    tiles: Tensor


def order_by_expert(expert_ids: Tensor, num_experts: int, tile_size: int) -> ExpertOrder:
    """Sort.

    Args:
        expert_ids: int32 [num_tokens, top_k], contiguous; -1 for none.
        tile_size: most pairs of a tile.
    """
    num_pairs = expert_ids.numel()
    num_tiles = num_pairs // tile_size + num_experts
    is_exact = num_pairs <= _BLOCK
    if is_exact:
        num_tiles = min(num_tiles, num_pairs)
    pairs = torch.empty(num_pairs, dtype=torch.int32, device=expert_ids.device)
    tiles = torch.empty(num_tiles, 3, dtype=torch.int32, device=expert_ids.device)
    _order_kernel[num_experts,](
        expert_ids_ptr=expert_ids,
        pairs_ptr=pairs,
        tiles_ptr=tiles,
        num_pairs=num_pairs,
        num_tiles=num_tiles,
        tile_size=tile_size,
        IS_EXACT=is_exact,
        EXPERTS=triton.next_power_of_2(num_experts),
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )
    return ExpertOrder(pairs, tiles)


def aot_specializations() -> Iterator[Specialization]:
    signature = dict.fromkeys(("expert_ids_ptr", "pairs_ptr", "tiles_ptr"), "*i32")
    signature |= dict.fromkeys(("num_pairs", "num_tiles", "tile_size"), "i32")
    for experts in powers_of_2(8, 512):
        for is_exact in (False, True):
            constants = {"IS_EXACT": is_exact, "EXPERTS": experts, "BLOCK": _BLOCK}
            yield Specialization(_order_kernel, signature, constants, _NUM_WARPS, num_stages=3)


@triton.jit(do_not_specialize=["num_pairs", "num_tiles", "tile_size"])
def _order_kernel(
    expert_ids_ptr,
    pairs_ptr,
    tiles_ptr,
    num_pairs,
    num_tiles,
    tile_size,
    IS_EXACT: tl.constexpr,
    EXPERTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    expert = tl.program_id(0)
    places = tl.arange(0, BLOCK)
    num_before, count = 0, 0
    for start in range(0, num_pairs, BLOCK):
        is_inside = start + places < num_pairs
        expert_ids = tl.load(expert_ids_ptr + start + places, mask=is_inside, other=EXPERTS)
        num_before += tl.sum((expert_ids < expert).to(tl.int32), axis=0)
        count += tl.sum((expert_ids == expert).to(tl.int32), axis=0)
    end = num_before
    for start in range(0, num_pairs, BLOCK):
        is_inside = start + places < num_pairs
        expert_ids = tl.load(expert_ids_ptr + start + places, mask=is_inside, other=EXPERTS)
        is_own = (expert_ids == expert).to(tl.int32)
        own_places = end + tl.cumsum(is_own, axis=0) - 1
        tl.store(pairs_ptr + own_places, start + places, mask=is_own > 0)
        end += tl.sum(is_own, axis=0)

    is_last = expert == tl.num_programs(0) - 1
    if IS_EXACT:
        is_inside = places < num_pairs
        expert_ids = tl.load(expert_ids_ptr + places, mask=is_inside, other=-1)
        counts = tl.histogram(expert_ids, EXPERTS, mask=expert_ids >= 0)
        tiles_of_each = (counts + tile_size - 1) // tile_size
        is_before = tl.arange(0, EXPERTS) < expert
        first_tile = tl.sum(tl.where(is_before, tiles_of_each, 0), axis=0)
        end_tile = first_tile + (count + tile_size - 1) // tile_size
        end_tile = tl.where(is_last, num_tiles, end_tile)
    else:
        first_tile = tl.where(expert == 0, 0, num_before // tile_size + expert)
        end_tile = (num_before + count) // tile_size + expert + 1
    for tile in range(first_tile, end_tile):
        begin = num_before + (tile - first_tile) * tile_size
        tl.store(tiles_ptr + tile * 3, tl.where(begin < end, expert, -1))
        tl.store(tiles_ptr + tile * 3 + 1, begin)
        tl.store(tiles_ptr + tile * 3 + 2, tl.minimum(begin + tile_size, end))
