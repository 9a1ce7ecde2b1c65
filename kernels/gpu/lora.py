"""Low-rank adapters on a GPU: rows of one adapter are multiplied together, in two launches.

The first makes few numbers of many inputs, so programs share the inputs among them; the second
makes many of few, and adds them where they belong. A program reads its rows and their adapter from
the batch's tiles, on the device: grids depend on the numbers of rows and adapters alone.

Source: Punica (Chen et al., 2023), whose "shrink" and "expand" these are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.lora import LoraWeights
from octavo.kernels.lora_batch import LoraBatch

from .aot import Specialization
from .tiles import num_splits, split_buffers, steps_of_split, sum_over_splits

_TILE_SIZES = (16, 64)
_RANK_BLOCKS = (16, 32, 64)


@dataclass(frozen=True, slots=True)
class LoraLaunch:
    """The constants of both launches.

    Attributes:
        block_r: ranks of a tile, or of a step.
        block_k, block_n: inputs of a step of the first, outputs of a tile of the second.
    """

    block_r: int
    block_k: int
    block_n: int
    num_warps: int
    num_stages: int


def add_lora(
    out: Tensor, x: Tensor, weights: LoraWeights, batch: LoraBatch, arrivals: Tensor | None = None
) -> None:
    """Add what the adapters make of `x`, as kernels.add_lora does, in two launches."""
    if not len(x):
        return
    _, num_slices, rank, _ = weights.down.shape
    hidden = torch.empty(len(x), num_slices * rank, dtype=torch.float32, device=x.device)
    _shrink(hidden, x, weights, batch, arrivals)
    _expand(out, hidden, weights, batch)


def _shrink(
    hidden: Tensor, x: Tensor, weights: LoraWeights, batch: LoraBatch, arrivals: Tensor | None
) -> None:
    """Make [num_rows, num_slices * rank] of `x`, in the order of `batch.rows`."""
    num_ranks, in_features = hidden.shape[1], x.shape[1]
    launch = launch_config(num_ranks, batch.tile_size)
    num_tiles = len(batch.tiles) * triton.cdiv(num_ranks, launch.block_r)
    num_steps = triton.cdiv(in_features, launch.block_k)
    splits = num_splits(num_tiles, num_steps, batch.tile_size)
    tile_size = batch.tile_size * launch.block_r
    sums, arrivals = split_buffers(num_tiles, splits, tile_size, arrivals, x.device)
    _shrink_kernel[(num_tiles, splits)](
        x_ptr=x,
        rows_ptr=batch.rows,
        tiles_ptr=batch.tiles,
        down_ptr=weights.down,
        hidden_ptr=hidden,
        sums_ptr=sums,
        arrivals_ptr=arrivals,
        num_ranks=num_ranks,
        in_features=in_features,
        BLOCK_M=batch.tile_size,
        BLOCK_R=launch.block_r,
        BLOCK_K=launch.block_k,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )


def _expand(out: Tensor, hidden: Tensor, weights: LoraWeights, batch: LoraBatch) -> None:
    """Add to `out` what is made of [num_rows, num_slices * rank]."""
    rank = weights.up.shape[2]
    launch = launch_config(rank, batch.tile_size)
    num_n_tiles = triton.cdiv(max(weights.slice_sizes), launch.block_n)
    _expand_kernel[(len(batch.tiles) * num_n_tiles, len(weights.slice_sizes))](
        hidden_ptr=hidden,
        rows_ptr=batch.rows,
        tiles_ptr=batch.tiles,
        up_ptr=weights.up,
        scales_ptr=weights.scales,
        slice_starts_ptr=weights.slice_starts,
        out_ptr=out,
        num_n_tiles=num_n_tiles,
        num_ranks=hidden.shape[1],
        rank=rank,
        out_features=out.shape[1],
        BLOCK_M=batch.tile_size,
        BLOCK_N=launch.block_n,
        BLOCK_R=launch.block_r,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )


def launch_config(num_ranks: int, tile_size: int) -> LoraLaunch:
    """A tile has all ranks up to 64, so that each row of `x` is read once; not yet measured."""
    block_r = max(_RANK_BLOCKS[0], min(_RANK_BLOCKS[-1], triton.next_power_of_2(num_ranks)))
    # More outputs than that for 64 rows, and registers are spilled.
    block_n = 128 if tile_size == 16 else 64
    return LoraLaunch(block_r, block_k=128, block_n=block_n, num_warps=4, num_stages=3)


def aot_specializations() -> Iterator[Specialization]:
    for dtype in ("bf16", "fp16"):
        index_pointers = dict.fromkeys(("rows_ptr", "tiles_ptr"), "*i32")
        shrink = index_pointers | {
            "x_ptr": f"*{dtype}",
            "down_ptr": f"*{dtype}",
            "hidden_ptr": "*fp32",
            "sums_ptr": "*fp32",
            "arrivals_ptr": "*i32",
            "num_ranks": "i32:16",
            "in_features": "i32:16",
        }
        expand = index_pointers | {
            "hidden_ptr": "*fp32",
            "up_ptr": f"*{dtype}",
            "scales_ptr": "*fp32",
            "slice_starts_ptr": "*i32",
            "out_ptr": f"*{dtype}",
            "num_n_tiles": "i32",
            "num_ranks": "i32:16",
            "rank": "i32:16",
            "out_features": "i32:16",
        }
        for num_ranks in _RANK_BLOCKS:
            for tile_size in _TILE_SIZES:
                launch = launch_config(num_ranks, tile_size)
                constexprs = {"BLOCK_M": tile_size, "BLOCK_R": launch.block_r}
                resources = (launch.num_warps, launch.num_stages)
                own = constexprs | {"BLOCK_K": launch.block_k}
                yield Specialization(_shrink_kernel, shrink, own, *resources)
                own = constexprs | {"BLOCK_N": launch.block_n}
                yield Specialization(_expand_kernel, expand, own, *resources)


@triton.jit
def _shrink_kernel(
    x_ptr,
    rows_ptr,
    tiles_ptr,
    down_ptr,
    hidden_ptr,
    sums_ptr,
    arrivals_ptr,
    num_ranks,
    in_features,
    BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    program, split, num_splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    num_rank_tiles = tl.cdiv(num_ranks, BLOCK_R)
    adapter, places, rows, is_row = _rows_of_tile(
        tiles_ptr, rows_ptr, program // num_rank_tiles, BLOCK_M
    )
    if adapter < 0:
        return
    ranks = program % num_rank_tiles * BLOCK_R + tl.arange(0, BLOCK_R)  # [BLOCK_R]
    inputs = tl.arange(0, BLOCK_K)  # [BLOCK_K]
    is_rank = ranks < num_ranks
    first_step, last_step = steps_of_split(split, num_splits, tl.cdiv(in_features, BLOCK_K))
    x_ptrs = x_ptr + rows[:, None] * in_features + inputs[None, :]
    down_ptrs = down_ptr + (adapter * num_ranks + ranks)[None, :] * in_features + inputs[:, None]

    total = tl.zeros((BLOCK_M, BLOCK_R), dtype=tl.float32)
    for step in range(first_step, last_step):
        is_input = inputs < in_features - step * BLOCK_K
        x = tl.load(
            x_ptrs + step * BLOCK_K, mask=is_row[:, None] & is_input[None, :], other=0.0
        )  # [BLOCK_M, BLOCK_K]
        down = tl.load(
            down_ptrs + step * BLOCK_K, mask=is_input[:, None] & is_rank[None, :], other=0.0
        )  # [BLOCK_K, BLOCK_R]
        total = tl.dot(x, down, total, input_precision="ieee")

    if num_splits > 1:
        total, is_last = sum_over_splits(
            total, sums_ptr, arrivals_ptr, program, split, num_splits, ROWS=BLOCK_M, COLUMNS=BLOCK_R
        )
        is_row = is_row & is_last
    hidden_ptrs = hidden_ptr + places[:, None].to(tl.int64) * num_ranks + ranks[None, :]
    tl.store(hidden_ptrs, total, mask=is_row[:, None] & is_rank[None, :])


@triton.jit
def _expand_kernel(
    hidden_ptr,
    rows_ptr,
    tiles_ptr,
    up_ptr,
    scales_ptr,
    slice_starts_ptr,
    out_ptr,
    num_n_tiles,
    num_ranks,
    rank,
    out_features,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    program, slice_id = tl.program_id(0), tl.program_id(1)
    adapter, places, rows, is_row = _rows_of_tile(
        tiles_ptr, rows_ptr, program // num_n_tiles, BLOCK_M
    )
    first_output = tl.load(slice_starts_ptr + slice_id) + program % num_n_tiles * BLOCK_N
    last_output = tl.load(slice_starts_ptr + slice_id + 1)
    if (adapter < 0) | (first_output >= last_output):
        return
    outputs = first_output + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    is_output = outputs < last_output
    ranks = tl.arange(0, BLOCK_R)  # [BLOCK_R]
    hidden_ptrs = hidden_ptr + places[:, None].to(tl.int64) * num_ranks + slice_id * rank
    up_ptrs = up_ptr + (adapter * out_features + outputs)[None, :] * rank

    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for first_rank in range(0, rank, BLOCK_R):
        is_rank = ranks < rank - first_rank
        hidden = tl.load(
            hidden_ptrs + first_rank + ranks[None, :],
            mask=is_row[:, None] & is_rank[None, :],
            other=0.0,
        )  # [BLOCK_M, BLOCK_R]
        up = tl.load(
            up_ptrs + first_rank + ranks[:, None],
            mask=is_rank[:, None] & is_output[None, :],
            other=0.0,
        )  # [BLOCK_R, BLOCK_N]
        total = tl.dot(hidden.to(up.dtype), up, total, input_precision="ieee")

    out_ptrs = out_ptr + rows[:, None] * out_features + outputs[None, :]
    is_inside = is_row[:, None] & is_output[None, :]
    out = tl.load(out_ptrs, mask=is_inside, other=0.0).to(tl.float32)
    out += total * tl.load(scales_ptr + adapter)
    tl.store(out_ptrs, out.to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit
def _rows_of_tile(tiles_ptr, rows_ptr, tile, BLOCK_M: tl.constexpr):
    """Return whose rows a tile has, and which.

    Returns:
        The adapter, int64, -1 where there are no rows; [BLOCK_M] the places of the rows in their
        order; the rows, int64; whether each is one.
    """
    adapter = tl.load(tiles_ptr + 3 * tile).to(tl.int64)
    first, last = tl.load(tiles_ptr + 3 * tile + 1), tl.load(tiles_ptr + 3 * tile + 2)
    places = first + tl.arange(0, BLOCK_M)
    is_row = places < last
    rows = tl.load(rows_ptr + places, mask=is_row, other=0).to(tl.int64)
    return tl.where(first < last, adapter, -1), places, rows, is_row
