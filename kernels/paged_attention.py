"""Paged attention: every new token attends to its request's cached keys and values.

    out[t] = softmax(scale · q[t] · K[0..pos(t)]) · V[0..pos(t)]

Sources: PagedAttention (Kwon et al., 2023), FlashAttention-2 (Dao, 2023).
"""

import torch
from torch import Tensor

from .cpu import library
from .gpu.interpreter import interpreting
from .kv_blocks import KvBlocks
from .kv_pages import MAX_HEAD_DIM, KvPages

# What the scratch memory of the C++ kernel is made for.
MAX_HEADS_PER_KV_HEAD = 64


def paged_attention(
    q: Tensor,
    pages: KvPages | KvBlocks,
    block_tables: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
    scale: float,
) -> Tensor:
    """Attend over the paged KV cache.

    The keys are taken in tiles that start at fixed absolute positions, one after the other, in
    float32: the result for a token does not depend on the batch, the chunk it came in, or the
    number of threads.

    Of an int8 cache products are of bytes, too: the C++ kernel takes a query as bytes with a scale
    for each head, and the weights of a tile, each times the scale of its value, as bytes with one.

    Args:
        q: queries, [num_tokens, num_heads, head_dim]; tokens may be apart by any stride.
        pages: the layer's cache, dtype of q or of 8 bits: KvPages int8, KvBlocks float8_e4m3fn.
        block_tables: int32 [num_requests, max_blocks]; entries past a request's blocks are ignored.
        seq_lens: int32 [num_requests], tokens in the cache including this step's. In KvBlocks it
            is 0 for a request that only fills the batch up, which gets zeros.
        query_start_loc: int32 [num_requests + 1], prefix sums of each request's new tokens, which
            are the last ones of its sequence.
    Returns:
        [num_tokens, num_heads, head_dim], contiguous, dtype of q.
    """
    rows = (block_tables, seq_lens, query_start_loc)
    if isinstance(pages, KvBlocks) and (q.is_cuda or interpreting()):
        # Triton is there where a device is.
        from .gpu import prefill_attention as gpu

        return gpu.prefill_attention(
            *(q, pages.k_cache, pages.v_cache, *rows, scale),
            k_scale=pages.k_scale,
            v_scale=pages.v_scale,
        )
    cpu = library.load_for(q.dtype)
    if cpu is None or isinstance(pages, KvBlocks):
        return paged_attention_reference(q, pages, *rows, scale)
    _check(q, pages, block_tables, seq_lens, query_start_loc)
    _, num_heads, head_dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype)
    cpu.paged_attention(
        q.data_ptr(),
        pages.tensor.data_ptr(),
        block_tables.data_ptr(),
        seq_lens.data_ptr(),
        query_start_loc.data_ptr(),
        out.data_ptr(),
        len(seq_lens),
        num_heads,
        pages.num_kv_heads,
        head_dim,
        pages.block_size,
        q.stride(0),
        block_tables.stride(0),
        scale,
        library.DTYPES[q.dtype],
        library.CACHE_DTYPES[pages.dtype],
    )
    return out


def paged_attention_reference(
    q: Tensor,
    pages: KvPages | KvBlocks,
    block_tables: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
    scale: float,
) -> Tensor:
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    heads_per_kv_head = q.shape[1] // pages.num_kv_heads
    starts = query_start_loc.tolist()
    for request, seq_len in enumerate(seq_lens.tolist()):
        queries = slice(starts[request], starts[request + 1])
        if not seq_len:
            out[queries] = 0
            continue
        block_ids = block_tables[request, : -(-seq_len // pages.block_size)].long()
        keys, values = (
            tokens.float().repeat_interleave(heads_per_kv_head, dim=1)
            for tokens in pages.read(block_ids, seq_len)
        )
        scores = torch.einsum("qhd,khd->hqk", q[queries].float(), keys) * scale
        positions = torch.arange(seq_len, device=q.device)
        is_later = positions > positions[seq_len - scores.shape[1] :, None]
        weights = scores.masked_fill(is_later, -torch.inf).softmax(dim=-1)
        out[queries] = torch.einsum("hqk,khd->qhd", weights, values).to(q.dtype)
    return out


def check_heads(num_heads: int, pages: KvPages) -> None:
    """Raise AssertionError for heads that the C++ kernel has no room for."""
    assert num_heads % pages.num_kv_heads == 0, num_heads
    assert num_heads <= MAX_HEADS_PER_KV_HEAD * pages.num_kv_heads, num_heads
    assert pages.head_dim <= MAX_HEAD_DIM and pages.head_dim % 2 == 0, pages.head_dim


def _check(
    q: Tensor,
    pages: KvPages,
    block_tables: Tensor,
    seq_lens: Tensor,
    query_start_loc: Tensor,
) -> None:
    _, num_heads, head_dim = q.shape
    assert q.stride()[1:] == (head_dim, 1), q.stride()
    assert pages.dtype in (q.dtype, torch.int8) and pages.head_dim == head_dim, pages.dtype
    assert pages.tensor.is_contiguous()
    assert block_tables.dtype == seq_lens.dtype == query_start_loc.dtype == torch.int32
    assert len(block_tables) == len(seq_lens) == len(query_start_loc) - 1, block_tables.shape
    assert block_tables.stride(1) == 1, block_tables.stride()
    check_heads(num_heads, pages)
