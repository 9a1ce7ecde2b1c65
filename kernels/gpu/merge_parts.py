"""Joins what several programs found of one request: the second half of a decode step's attention.

Each part is an output as if its keys were all there are, with the sum of its exponentials, by
which it counts.

Source: Flash-Decoding (Dao et al., 2023).
"""

from collections.abc import Iterator

import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization
from .attention_math import NO_SCORE
from .decode_work import DecodeWork, part_of, program_of

# What a program takes at once, not yet measured: few rows, as there are few parts to read and
# many requests of one part, whose programs have nothing to do.
_ROWS, _PARTS, _NUM_WARPS = 4, 8, 4


def merge_parts(work: DecodeWork, out: Tensor) -> None:
    """Write the output of each request that several programs have read, or none.

    Args:
        work: whose parts the attention kernel has just written.
        out: [num_requests * work.query_len, num_heads, head_dim], contiguous.
    """
    num_tokens, num_heads, head_dim = out.shape
    num_requests, num_rows = num_tokens // work.query_len, work.query_len * num_heads
    _merge_parts_kernel[(num_requests, triton.cdiv(num_rows, _ROWS))](
        partial_out_ptr=work.partial_out,
        partial_lse_ptr=work.partial_lse,
        tile_starts_ptr=work.tile_starts,
        out_ptr=out,
        num_requests=num_requests,
        NUM_ROWS=num_rows,
        HEAD_DIM=head_dim,
        NUM_PROGRAMS=work.num_programs,
        ROWS=_ROWS,
        PARTS=_PARTS,
        PADDED_DIM=work.shape.padded_dim,
        num_warps=_NUM_WARPS,
    )


def aot_specializations() -> Iterator[Specialization]:
    for head_dim, padded_dim, dtype in ((64, 64, "*bf16"), (96, 128, "*fp16"), (256, 256, "*bf16")):
        signature = dict.fromkeys(("partial_out_ptr", "partial_lse_ptr"), "*fp32")
        signature |= {"tile_starts_ptr": "*i32", "out_ptr": dtype, "num_requests": "i32"}
        constexprs = {
            "NUM_ROWS": 32,
            "HEAD_DIM": head_dim,
            "NUM_PROGRAMS": 33,
            "ROWS": _ROWS,
            "PARTS": _PARTS,
            "PADDED_DIM": padded_dim,
        }
        yield Specialization(_merge_parts_kernel, signature, constexprs, _NUM_WARPS, num_stages=3)


@triton.jit(do_not_specialize=["num_requests"])
def _merge_parts_kernel(
    partial_out_ptr,
    partial_lse_ptr,
    tile_starts_ptr,
    out_ptr,
    num_requests,
    NUM_ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    PADDED_DIM: tl.constexpr,
):
    request = tl.program_id(0)
    # A row is a head of a new token.
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    dims = tl.arange(0, PADDED_DIM)
    is_row = rows < NUM_ROWS
    is_inside = is_row[:, None] & (dims < HEAD_DIM)[None, :]  # [ROWS, PADDED_DIM]
    out_rows = request.to(tl.int64) * NUM_ROWS + rows
    out_ptrs = out_ptr + out_rows[:, None] * HEAD_DIM + dims[None, :]

    start = tl.load(tile_starts_ptr + request)
    end = tl.load(tile_starts_ptr + request + 1)
    if start == end:
        zeros = tl.zeros([ROWS, PADDED_DIM], out_ptr.dtype.element_ty)
        tl.store(out_ptrs, zeros, mask=is_inside)
    else:
        num_tiles = tl.load(tile_starts_ptr + num_requests)
        first = program_of(start, num_tiles, NUM_PROGRAMS)
        last = program_of(end - 1, num_tiles, NUM_PROGRAMS)
        # A single program has written the output.
        if first < last:
            acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
            row_max = tl.full([ROWS], NO_SCORE, tl.float32)
            row_sum = tl.zeros([ROWS], tl.float32)
            for start_program in range(first, last + 1, PARTS):
                programs = start_program + tl.arange(0, PARTS)
                is_part = (programs <= last)[:, None] & is_row[None, :]  # [PARTS, ROWS]
                parts = part_of(programs, programs == first)
                part_rows = parts[:, None] * NUM_ROWS + rows[None, :]
                lse = tl.load(partial_lse_ptr + part_rows, mask=is_part, other=NO_SCORE)
                offsets = part_rows[:, :, None] * HEAD_DIM + dims[None, None, :]
                is_read = is_part[:, :, None] & (dims < HEAD_DIM)[None, None, :]
                partial = tl.load(partial_out_ptr + offsets, mask=is_read, other=0.0)
                new_max = tl.maximum(row_max, tl.max(lse, axis=0))
                shrink = tl.exp2(row_max - new_max)
                weights = tl.exp2(lse - new_max[None, :])
                row_sum = row_sum * shrink + tl.sum(weights, axis=0)
                acc = acc * shrink[:, None] + tl.sum(partial * weights[:, :, None], axis=0)
                row_max = new_max
            tl.store(out_ptrs, acc / row_sum[:, None], mask=is_inside)
