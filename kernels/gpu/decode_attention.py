"""Paged attention of a decode step: few new tokens for each request, each over its whole cache.

    out[t] = softmax(scale · q[t] · K[0..pos(t)]) · V[0..pos(t)]

The time goes into reading keys and values, so each is read once: the query heads of a KV head, and
the request's new tokens, are the rows of one product. Which program reads what, decode_work.py
says.

Sources: PagedAttention (Kwon et al., 2023), FlashAttention-2 (Dao, 2023); packed query heads as in
the vLLM Triton backend (arXiv 2511.11581).
"""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization
from .attention_math import NO_SCORE, attend_tile, check_cache, load_blocks
from .decode_work import LAUNCHES, DecodeShape, DecodeWork, first_read_key, part_of, share_start
from .merge_parts import merge_parts


def decode_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    scale: float,
    work: DecodeWork,
    *,
    soft_cap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Attend over the paged KV cache; nothing is allocated but an output that is not given.

    Args:
        q: queries, [num_requests * work.query_len, num_heads, head_dim]: the last tokens of each
            request; tokens may be apart by any stride.
        k_cache, v_cache: [num_blocks, block_size, num_kv_heads, head_dim], contiguous; dtype of q
            or float8_e4m3fn.
        block_tables: int32 [num_requests, max_blocks]; entries past a request's blocks, and before
            those that the window reaches, are ignored.
        seq_lens: int32 [num_requests], tokens in the cache including this step's; 0 for a row of
            padding, else at least work.query_len.
        scale: of the products, before the cap; positive.
        work: planned for these seq_lens.
        soft_cap: scores go no further than this, by tanh; 0 for no cap.
        k_scale, v_scale: what the cache's numbers are to be multiplied by.
        out: like q, contiguous: where the result goes; None: to memory of its own.
    Returns:
        Tensor like q, contiguous; zeros for rows of padding.
    """
    _, num_heads, head_dim = q.shape
    _, block_size, num_kv_heads, _ = k_cache.shape
    _check(q, k_cache, v_cache, block_tables, seq_lens, work)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    assert out.is_contiguous() and out.shape == q.shape and out.dtype == q.dtype, out.shape
    _decode_attention_kernel[(work.num_programs * num_kv_heads,)](
        q_ptr=q,
        k_ptr=k_cache,
        v_ptr=v_cache,
        out_ptr=out,
        block_tables_ptr=block_tables,
        seq_lens_ptr=seq_lens,
        tile_starts_ptr=work.tile_starts,
        first_requests_ptr=work.first_requests,
        partial_out_ptr=work.partial_out,
        partial_lse_ptr=work.partial_lse,
        num_requests=len(seq_lens),
        q_stride=q.stride(0),
        block_tables_stride=block_tables.stride(0),
        scale=scale * k_scale,
        v_scale=v_scale,
        QUERY_LEN=work.query_len,
        NUM_KV_HEADS=num_kv_heads,
        HEADS_PER_KV_HEAD=num_heads // num_kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size,
        WINDOW=work.window,
        SOFT_CAP=soft_cap,
        NUM_PROGRAMS=work.num_programs,
        TILE=work.launch.tile,
        ROWS=work.shape.rows,
        PADDED_DIM=work.shape.padded_dim,
        num_warps=work.launch.num_warps,
        num_stages=work.launch.num_stages,
    )
    merge_parts(work, out)
    return out


def _check(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    work: DecodeWork,
) -> None:
    num_tokens, num_heads, head_dim = q.shape
    check_cache(q, k_cache, v_cache)
    assert num_tokens == len(seq_lens) * work.query_len, (num_tokens, seq_lens.shape)
    assert work.partial_out.shape[2:] == (work.query_len, num_heads, head_dim), q.shape
    assert block_tables.dtype == seq_lens.dtype == torch.int32
    assert len(block_tables) == len(seq_lens), block_tables.shape
    assert block_tables.stride(1) == 1, block_tables.stride()


def aot_specializations() -> Iterator[Specialization]:
    grid = product((64, 128, 256), (4, 64), (2, 1))
    shapes = [DecodeShape.of(heads, dim, itemsize) for dim, heads, itemsize in grid]
    for i, (architecture, shape, launch) in enumerate(LAUNCHES.to_compile(shapes)):
        # What changes nothing about the launch takes turns.
        dtype = ("*fp16", "*bf16")[i // 4 % 2]
        cache = "*fp8e4nv" if shape.itemsize == 1 else dtype
        signature = {"q_ptr": dtype, "k_ptr": cache, "v_ptr": cache, "out_ptr": dtype}
        signature |= dict.fromkeys(("block_tables_ptr", "seq_lens_ptr"), "*i32")
        signature |= dict.fromkeys(("tile_starts_ptr", "first_requests_ptr"), "*i32")
        signature |= dict.fromkeys(("partial_out_ptr", "partial_lse_ptr"), "*fp32")
        signature |= {"num_requests": "i32", "q_stride": "i32:16", "block_tables_stride": "i32"}
        signature |= {"scale": "fp32", "v_scale": "fp32"}
        constexprs = {
            "QUERY_LEN": 1,
            "NUM_KV_HEADS": 8,
            "HEADS_PER_KV_HEAD": 4 if shape.rows == 16 else shape.rows,
            "HEAD_DIM": shape.padded_dim,
            "BLOCK_SIZE": (16, 32, 64)[i % 3],
            "WINDOW": (0, 4096)[i % 2],
            "SOFT_CAP": (0.0, 50.0)[i // 2 % 2],
            "NUM_PROGRAMS": 33,
            "TILE": launch.tile,
            "ROWS": shape.rows,
            "PADDED_DIM": shape.padded_dim,
        }
        resources = (launch.num_warps, launch.num_stages, architecture)
        yield Specialization(_decode_attention_kernel, signature, constexprs, *resources)


@triton.jit(do_not_specialize=["num_requests"])
def _decode_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    block_tables_ptr,
    seq_lens_ptr,
    tile_starts_ptr,
    first_requests_ptr,
    partial_out_ptr,
    partial_lse_ptr,
    num_requests,
    q_stride,
    block_tables_stride,
    scale,
    v_scale,
    QUERY_LEN: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEADS_PER_KV_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    NUM_PROGRAMS: tl.constexpr,
    TILE: tl.constexpr,
    ROWS: tl.constexpr,
    PADDED_DIM: tl.constexpr,
):
    # Programs that run at the same time read the same tokens' heads, which lie together.
    program = tl.program_id(0) // NUM_KV_HEADS
    kv_head = tl.program_id(0) % NUM_KV_HEADS
    NUM_HEADS: tl.constexpr = NUM_KV_HEADS * HEADS_PER_KV_HEAD
    first_head = kv_head * HEADS_PER_KV_HEAD
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, PADDED_DIM)
    tokens = rows // HEADS_PER_KV_HEAD
    heads = rows % HEADS_PER_KV_HEAD
    is_row = tokens < QUERY_LEN
    is_inside = is_row[:, None] & (dims < HEAD_DIM)[None, :]  # [ROWS, PADDED_DIM]
    q_offsets = (tokens * q_stride + heads * HEAD_DIM)[:, None] + dims[None, :]
    out_rows = tokens * NUM_HEADS + heads
    out_offsets = (out_rows * HEAD_DIM)[:, None] + dims[None, :]

    num_tiles = tl.load(tile_starts_ptr + num_requests)
    tile = share_start(program, num_tiles, NUM_PROGRAMS)
    share_end = share_start(program + 1, num_tiles, NUM_PROGRAMS)
    request = tl.load(first_requests_ptr + program)
    while tile < share_end:
        seq_len = tl.load(seq_lens_ptr + request)
        request_start = tl.load(tile_starts_ptr + request)
        request_end = tl.load(tile_starts_ptr + request + 1)
        end = tl.minimum(request_end, share_end)
        first_key = first_read_key(seq_len, QUERY_LEN, WINDOW)
        first_tile = first_key // TILE
        first_token = request.to(tl.int64) * QUERY_LEN

        q_start_ptr = q_ptr + first_token * q_stride + first_head * HEAD_DIM
        q = tl.load(q_start_ptr + q_offsets, mask=is_inside, other=0.0)
        if k_ptr.dtype.element_ty.primitive_bitwidth == 8:
            q = q.to(tl.float16)
        acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
        row_max = tl.full([ROWS], NO_SCORE, tl.float32)
        row_sum = tl.zeros([ROWS], tl.float32)
        table_ptr = block_tables_ptr + request.to(tl.int64) * block_tables_stride
        start = (first_tile + tile - request_start) * TILE
        blocks = load_blocks(table_ptr, start, first_key, seq_len, TILE, BLOCK_SIZE)
        for step in range(tile - request_start, end - request_start):
            start = (first_tile + step) * TILE
            next_blocks = load_blocks(table_ptr, start + TILE, first_key, seq_len, TILE, BLOCK_SIZE)
            acc, row_max, row_sum = attend_tile(
                q,
                acc,
                row_max,
                row_sum,
                k_ptr + kv_head * HEAD_DIM,
                v_ptr + kv_head * HEAD_DIM,
                blocks,
                start,
                seq_len - QUERY_LEN + tokens,
                first_key,
                seq_len,
                scale,
                MASKED=True,
                TILE=TILE,
                BLOCK_SIZE=BLOCK_SIZE,
                NUM_KV_HEADS=NUM_KV_HEADS,
                HEAD_DIM=HEAD_DIM,
                PADDED_DIM=PADDED_DIM,
                WINDOW=WINDOW,
                SOFT_CAP=SOFT_CAP,
            )
            blocks = next_blocks

        # The largest score adds 1 to the sum; without a visible key the sum is 0.
        row_sum = tl.maximum(row_sum, 1.0)
        result = acc * (v_scale / row_sum)[:, None]
        if (tile == request_start) & (end == request_end):
            first_out_row = first_token * NUM_HEADS + first_head
            tl.store(out_ptr + first_out_row * HEAD_DIM + out_offsets, result, mask=is_inside)
        else:
            part = part_of(program, tile == request_start)
            first_part_row = part * (QUERY_LEN * NUM_HEADS) + first_head
            part_ptr = partial_out_ptr + first_part_row * HEAD_DIM
            tl.store(part_ptr + out_offsets, result, mask=is_inside)
            lse = row_max + tl.log2(row_sum)
            tl.store(partial_lse_ptr + first_part_row + out_rows, lse, mask=is_row)
        tile = end
        request += 1
