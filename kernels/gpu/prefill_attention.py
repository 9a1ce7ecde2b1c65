"""Paged attention of prompts, and of chunks of them, over the cache that they have just joined.

    out[t] = softmax(scale · q[t] · K[0..pos(t)]) · V[0..pos(t)]

A program takes a block of tokens with all query heads of one KV head, as the rows of its products,
and walks over the keys that they see: first those that all of them see, without a mask, then the
diagonal. Tiles of keys start at fixed absolute positions and are taken in order, so that a token's
result does not depend on the chunk it came in.

Sources: PagedAttention (Kwon et al., 2023), FlashAttention-2 (Dao, 2023); packed query heads and
the search for a program's request as in the vLLM Triton backend (arXiv 2511.11581).
"""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization
from .attention_math import NO_SCORE, attend_tile, check_cache, load_blocks
from .prefill_launch import LAUNCHES, PrefillShape


def prefill_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
    scale: float,
    *,
    window: int = 0,
    soft_cap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Attend over the paged KV cache.

    The grid depends on shapes alone. A request with one new token is computed as well, but one
    program walks over all its keys, with few rows: many such are for decode_attention.

    Args:
        q: queries, [num_tokens, num_heads, head_dim]; tokens may be apart by any stride, and
            there may be more of them than query_start_loc tells of.
        k_cache, v_cache: [num_blocks, block_size, num_kv_heads, head_dim], contiguous; dtype of q
            or float8_e4m3fn.
        block_tables: int32 [num_requests, max_blocks]; entries past a request's blocks, and before
            those that the window reaches, are ignored.
        seq_lens: int32 [num_requests], tokens in the cache including this step's; 0 for a request
            that only fills the batch up, whose tokens get zeros.
        query_start_loc: int32 [num_requests + 1], prefix sums of each request's new tokens, which
            are the last ones of its sequence.
        scale: of the products, before the cap; positive.
        window: how many keys a token sees, itself included; 0 for all.
        soft_cap: scores go no further than this, by tanh; 0 for no cap.
        k_scale, v_scale: what the cache's numbers are to be multiplied by.
        out: like q, contiguous: where the result goes; None: to memory of its own.
    Returns:
        Tensor like q, contiguous; tokens of no request are not written.
    """
    num_tokens, num_heads, head_dim = q.shape
    _, block_size, num_kv_heads, _ = k_cache.shape
    _check(q, k_cache, v_cache, block_tables, seq_lens, query_start_loc)
    heads_per_kv_head = num_heads // num_kv_heads
    shape = PrefillShape.of(heads_per_kv_head, head_dim, k_cache.itemsize)
    launch = LAUNCHES.choose(shape, q.device)
    assert heads_per_kv_head <= launch.rows, (num_heads, k_cache.shape)
    # Each request may leave a block of tokens unfilled.
    num_blocks = num_tokens // (launch.rows // heads_per_kv_head) + len(seq_lens)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    assert out.is_contiguous() and out.shape == q.shape and out.dtype == q.dtype, out.shape
    _prefill_attention_kernel[(num_blocks * num_kv_heads,)](
        q_ptr=q,
        k_ptr=k_cache,
        v_ptr=v_cache,
        out_ptr=out,
        block_tables_ptr=block_tables,
        seq_lens_ptr=seq_lens,
        query_start_loc_ptr=query_start_loc,
        num_requests=len(seq_lens),
        num_blocks=num_blocks,
        q_stride=q.stride(0),
        block_tables_stride=block_tables.stride(0),
        scale=scale * k_scale,
        v_scale=v_scale,
        NUM_KV_HEADS=num_kv_heads,
        HEADS_PER_KV_HEAD=heads_per_kv_head,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size,
        WINDOW=window,
        SOFT_CAP=soft_cap,
        ROWS=launch.rows,
        TILE=launch.tile,
        PADDED_DIM=shape.padded_dim,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    return out


def _check(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    block_tables: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
) -> None:
    check_cache(q, k_cache, v_cache)
    assert block_tables.dtype == seq_lens.dtype == query_start_loc.dtype == torch.int32
    assert len(block_tables) == len(seq_lens) == len(query_start_loc) - 1, block_tables.shape
    assert block_tables.stride(1) == 1, block_tables.stride()


def aot_specializations() -> Iterator[Specialization]:
    shapes = [PrefillShape.of(4, *each) for each in product((64, 128, 256), (2, 1))]
    launches = product(LAUNCHES.to_compile(shapes), (0, 4096))
    for i, ((architecture, shape, launch), window) in enumerate(launches):
        # What changes nothing about the launch takes turns.
        dtype = ("*fp16", "*bf16")[i // 4 % 2]
        cache = "*fp8e4nv" if shape.itemsize == 1 else dtype
        signature = {"q_ptr": dtype, "k_ptr": cache, "v_ptr": cache, "out_ptr": dtype}
        pointers = ("block_tables_ptr", "seq_lens_ptr", "query_start_loc_ptr")
        signature |= dict.fromkeys(pointers, "*i32")
        signature |= {"num_requests": "i32", "num_blocks": "i32", "q_stride": "i32:16"}
        signature |= {"block_tables_stride": "i32", "scale": "fp32", "v_scale": "fp32"}
        constexprs = {
            "NUM_KV_HEADS": 8,
            "HEADS_PER_KV_HEAD": (4, 7)[i // 2 % 2],
            "HEAD_DIM": shape.padded_dim,
            "BLOCK_SIZE": (16, 32, 64)[i % 3],
            "WINDOW": window,
            "SOFT_CAP": (0.0, 50.0)[i % 2],
            "TILE": launch.tile,
            "ROWS": launch.rows,
            "PADDED_DIM": shape.padded_dim,
        }
        resources = (launch.num_warps, launch.num_stages, architecture)
        yield Specialization(_prefill_attention_kernel, signature, constexprs, *resources)


# Nothing of a step is compiled in: neither counts, nor where a slice of its requests begins.
@triton.jit(
    do_not_specialize=["num_requests", "num_blocks"],
    do_not_specialize_on_alignment=["block_tables_ptr", "seq_lens_ptr", "query_start_loc_ptr"],
)
def _prefill_attention_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    block_tables_ptr,
    seq_lens_ptr,
    query_start_loc_ptr,
    num_requests,
    num_blocks,
    q_stride,
    block_tables_stride,
    scale,
    v_scale,
    NUM_KV_HEADS: tl.constexpr,
    HEADS_PER_KV_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    PADDED_DIM: tl.constexpr,
):
    TOKENS: tl.constexpr = ROWS // HEADS_PER_KV_HEAD
    kv_head = tl.program_id(0) % NUM_KV_HEADS
    # The last tokens see the most keys: they start first, and the short programs fill the gaps.
    block = num_blocks - 1 - tl.program_id(0) // NUM_KV_HEADS
    request = _request_of_block(query_start_loc_ptr, block, num_requests, TOKENS)
    query_start = tl.load(query_start_loc_ptr + request)
    query_len = tl.load(query_start_loc_ptr + request + 1) - query_start
    first_token = (block - (query_start // TOKENS + request)) * TOKENS
    if first_token < query_len:
        rows = tl.arange(0, ROWS)
        dims = tl.arange(0, PADDED_DIM)
        tokens = rows // HEADS_PER_KV_HEAD
        heads = rows % HEADS_PER_KV_HEAD
        is_row = rows < tl.minimum(query_len - first_token, TOKENS) * HEADS_PER_KV_HEAD
        is_inside = is_row[:, None] & (dims < HEAD_DIM)[None, :]  # [ROWS, PADDED_DIM]
        block_token = (query_start + first_token).to(tl.int64)
        first_head = kv_head * HEADS_PER_KV_HEAD
        q_block_ptr = q_ptr + block_token * q_stride + first_head * HEAD_DIM
        q_offsets = (tokens * q_stride + heads * HEAD_DIM)[:, None] + dims[None, :]
        q = tl.load(q_block_ptr + q_offsets, mask=is_inside, other=0.0)
        if k_ptr.dtype.element_ty.primitive_bitwidth == 8:
            q = q.to(tl.float16)

        # All rows see the keys before full_end, in whole tiles; some see those up to end_key.
        # Of a window's few tiles most are at one of its ends: all of them are masked.
        seq_len = tl.load(seq_lens_ptr + request)
        first_position = seq_len - query_len + first_token
        end_key = tl.minimum(first_position + TOKENS, seq_len)
        first_key = 0
        full_end = first_position + 1 - (first_position + 1) % TILE
        if WINDOW > 0:
            first_key = tl.maximum(first_position + 1 - WINDOW, 0)

        table_ptr = block_tables_ptr + request.to(tl.int64) * block_tables_stride
        start = first_key - first_key % TILE
        blocks = load_blocks(table_ptr, start, first_key, end_key, TILE, BLOCK_SIZE)
        acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
        row_max = tl.full([ROWS], NO_SCORE, tl.float32)
        row_sum = tl.zeros([ROWS], tl.float32)
        for is_masked in tl.static_range(1 if WINDOW > 0 else 0, 2):
            end = end_key if is_masked else full_end
            for tile_start in range(start, end, TILE):
                next_blocks = load_blocks(
                    table_ptr, tile_start + TILE, first_key, end_key, TILE, BLOCK_SIZE
                )
                acc, row_max, row_sum = attend_tile(
                    q,
                    acc,
                    row_max,
                    row_sum,
                    k_ptr + kv_head * HEAD_DIM,
                    v_ptr + kv_head * HEAD_DIM,
                    blocks,
                    tile_start,
                    first_position + tokens,
                    first_key,
                    end_key,
                    scale,
                    MASKED=is_masked == 1,
                    TILE=TILE,
                    BLOCK_SIZE=BLOCK_SIZE,
                    NUM_KV_HEADS=NUM_KV_HEADS,
                    HEAD_DIM=HEAD_DIM,
                    PADDED_DIM=PADDED_DIM,
                    WINDOW=WINDOW,
                    SOFT_CAP=SOFT_CAP,
                )
                blocks = next_blocks
            start = tl.maximum(start, tl.cdiv(end, TILE) * TILE)

        # Rows of no token have seen no key.
        result = acc * (v_scale / tl.maximum(row_sum, 1.0))[:, None]
        NUM_HEADS: tl.constexpr = NUM_KV_HEADS * HEADS_PER_KV_HEAD
        out_block_ptr = out_ptr + (block_token * NUM_HEADS + first_head) * HEAD_DIM
        out_offsets = ((tokens * NUM_HEADS + heads) * HEAD_DIM)[:, None] + dims[None, :]
        tl.store(out_block_ptr + out_offsets, result, mask=is_inside)


@triton.jit
def _request_of_block(query_start_loc_ptr, block, num_requests, TOKENS: tl.constexpr):
    """Return the last request whose first block of tokens is not behind `block`.

    Request r starts at block query_start_loc[r] // TOKENS + r, so that each has room for all of
    its blocks wherever it starts.
    """
    low = 0
    high = num_requests
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(query_start_loc_ptr + middle) // TOKENS + middle <= block:
            low = middle
        else:
            high = middle
    return low
