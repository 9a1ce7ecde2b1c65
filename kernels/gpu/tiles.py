"""Tiles of a matrix product as programs: which tile is whose, and the sum of those who share one.

A product with few rows has fewer tiles than a GPU has processors, and yet a whole weight to read.
Several programs then share a tile, each with a run of the inputs ("split-K"). Each leaves the sum
of its own; the one that comes last adds them up, in order, so that the result does not depend on
who that is.

Sources: split-K and the order of tiles for the second-level cache, CUTLASS
(https://github.com/NVIDIA/cutlass) and Triton's tutorial on matrix products.
"""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Room for every launch that splits: those have fewer tiles than programs fit on a GPU.
MAX_SPLIT_TILES = 1024

# What an H200 has; others of its size want no other numbers.
_NUM_PROCESSORS = 132
_PROGRAMS_PER_PROCESSOR = 4

_MAX_SPLITS = 16


class TileLaunch(NamedTuple):
    """The constants of a launch.

    Attributes:
        block_m, block_n: tokens and outputs of a tile.
        block_k: inputs of a step.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int

    def grid(self, num_tokens: int, out_features: int, in_features: int) -> tuple[int, int]:
        """Return the numbers of tiles, and of programs that share one."""
        num_tiles = triton.cdiv(num_tokens, self.block_m) * triton.cdiv(out_features, self.block_n)
        num_steps = triton.cdiv(in_features, self.block_k)
        return num_tiles, num_splits(num_tiles, num_steps, self.block_m)


def num_splits(num_tiles: int, num_steps: int, num_tokens: int) -> int:
    """Return how many programs share a tile of `num_tokens` tokens that takes `num_steps` steps.

    A program with less than four steps would be done before its loads keep memory busy. The more
    tokens, the larger is the sum that it leaves beside the part of the weight that it reads: a step
    of 8-bit numbers is as much of that as 16 tokens are of the other.
    """
    wanted = _NUM_PROCESSORS * _PROGRAMS_PER_PROCESSOR // max(1, num_tiles)
    return max(1, min(wanted, num_steps // max(4, num_tokens // 8), _MAX_SPLITS))


def split_buffers(
    num_tiles: int, num_splits: int, tile_size: int, arrivals: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return where the programs of a tile leave their sums, and where they count themselves.

    Args:
        arrivals: int32 [MAX_SPLIT_TILES] of zeros, as every launch leaves them; launches that may
            run at once must not share it. Without one it is made.
    """
    if num_splits == 1:
        return _nothing(torch.float32, device), _nothing(torch.int32, device)
    assert num_tiles <= MAX_SPLIT_TILES, num_tiles
    if arrivals is None:
        arrivals = torch.zeros(num_tiles, dtype=torch.int32, device=device)
    sums = torch.empty(num_tiles * num_splits * tile_size, dtype=torch.float32, device=device)
    return sums, arrivals


@functools.cache
def _nothing(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.empty(0, dtype=dtype, device=device)


@triton.jit
def grouped_tile(program, num_m_tiles, num_n_tiles, GROUP: tl.constexpr):
    """Return the tile of a program, so that programs that run at once share rows of both factors.

    Tiles are taken column by column out of bands GROUP tiles of tokens high.
    """
    band = program // (GROUP * num_n_tiles)
    height = tl.minimum(num_m_tiles - band * GROUP, GROUP)
    within = program - band * GROUP * num_n_tiles
    return band * GROUP + within % height, within // height


@triton.jit
def steps_of_split(split, num_splits, num_steps):
    """Return a program's first step, and the one behind its last."""
    steps_per_split = tl.cdiv(num_steps, num_splits)
    first_step = split * steps_per_split
    return first_step, tl.minimum(first_step + steps_per_split, num_steps)


@triton.jit
def sum_over_splits(
    partial,
    sums_ptr,
    arrivals_ptr,
    tile,
    split,
    num_splits,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Leave a program's sum and, if it is the tile's last one, return the sum of all.

    Args:
        partial: float32 [ROWS, COLUMNS].
    Returns:
        The sum, and whether it is one: who is not the last has nothing to do with it.
    """
    offsets = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    first_ptr = sums_ptr + tile.to(tl.int64) * num_splits * (ROWS * COLUMNS)
    tl.store(first_ptr + split * (ROWS * COLUMNS) + offsets, partial)
    # All threads have stored before one of them says so. What it says releases their stores, and
    # acquires those of the programs that said so before.
    tl.debug_barrier()
    is_last = tl.atomic_add(arrivals_ptr + tile, 1, sem="acq_rel") == num_splits - 1
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if is_last:
        for each in range(num_splits):
            total += tl.load(first_ptr + each * (ROWS * COLUMNS) + offsets)
        tl.store(arrivals_ptr + tile, 0)
    return total, is_last


@triton.jit
def store_tile(total, bias_ptr, out_ptr, tokens, outputs, is_token, is_output, out_features):
    """Add the bias, if there is one, round, and store.

    Args:
        total: float32 [BLOCK_N, BLOCK_M], outputs by tokens.
        bias_ptr: [out_features], or None.
        out_ptr: [num_tokens, out_features].
        tokens, is_token: [BLOCK_M], which are stored.
        outputs, is_output: [BLOCK_N].
    """
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + outputs, mask=is_output, other=0.0)
        total += bias.to(tl.float32)[:, None]
    out_ptrs = out_ptr + tokens[:, None].to(tl.int64) * out_features + outputs[None, :]
    out = tl.trans(total).to(out_ptr.dtype.element_ty)
    tl.store(out_ptrs, out, mask=is_token[:, None] & is_output[None, :])
