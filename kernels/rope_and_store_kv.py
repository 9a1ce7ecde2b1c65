"""Rotary embedding of queries and keys, and the write of keys and values into the paged cache.

    [a, b] = halves of a head        rotated = [a · cos − b · sin, b · cos + a · sin]

Source: RoFormer (Su et al., 2021), with the pairing of GPT-NeoX: dimension i turns with i + d/2.
"""

import torch
from torch import Tensor

from .cpu import library
from .gpu.interpreter import interpreting
from .kv_blocks import KvBlocks
from .kv_pages import MAX_HEAD_DIM, KvPages


def rope_and_store_kv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos_sin: Tensor,
    positions: Tensor,
    pages: KvPages | KvBlocks,
    slot_mapping: Tensor,
    rotated: Tensor | None = None,
) -> None:
    """Rotate `q`, and write rotated `k` and `v` to their slots of the cache.

    Args:
        q: [num_tokens, num_heads, head_dim]; k, v: [num_tokens, num_kv_heads, head_dim]. They may
            be views into one fused output: each token's heads are contiguous, tokens are apart by
            any stride. `k` and `v` themselves are left as they are.
        cos_sin: float32 [max_positions, head_dim]: cosines of the head_dim / 2 angles, then sines.
        positions: int64 [num_tokens], rows of `cos_sin`.
        pages: the layer's cache, dtype of q or of 8 bits: KvPages int8, KvBlocks float8_e4m3fn.
        slot_mapping: int64 [num_tokens], block_id * block_size + offset; no slot occurs twice. In
            KvBlocks nothing is written of a token whose slot is -1.
        rotated: like q, where the rotated queries go; None: into `q` itself. With KvBlocks only.
    """
    args = (q, k, v, cos_sin, positions)
    if isinstance(pages, KvBlocks) and (q.is_cuda or interpreting()):
        # Triton is there where a device is.
        from .gpu import rope_and_store_kv as gpu

        caches = (pages.k_cache, pages.v_cache)
        return gpu.rope_and_store_kv(
            *args,
            *caches,
            slot_mapping,
            rotated=rotated,
            k_scale=pages.k_scale,
            v_scale=pages.v_scale,
        )
    cpu = library.load_for(q.dtype)
    if cpu is None or isinstance(pages, KvBlocks):
        return rope_and_store_kv_reference(*args, pages, slot_mapping, rotated)
    assert rotated is None
    _check(q, k, v, cos_sin, positions, pages, slot_mapping)
    num_tokens, num_heads, head_dim = q.shape
    cpu.rope_and_store_kv(
        q.data_ptr(),
        k.data_ptr(),
        v.data_ptr(),
        cos_sin.data_ptr(),
        positions.data_ptr(),
        pages.tensor.data_ptr(),
        slot_mapping.data_ptr(),
        num_tokens,
        num_heads,
        k.shape[1],
        head_dim,
        pages.block_size,
        q.stride(0),
        k.stride(0),
        v.stride(0),
        library.DTYPES[q.dtype],
        library.CACHE_DTYPES[pages.dtype],
    )


def rope_and_store_kv_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos_sin: Tensor,
    positions: Tensor,
    pages: KvPages | KvBlocks,
    slot_mapping: Tensor,
    rotated: Tensor | None = None,
) -> None:
    cos, sin = cos_sin[positions].unsqueeze(1).chunk(2, dim=-1)

    def turned(heads: Tensor) -> Tensor:
        a, b = heads.float().chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(heads.dtype)

    (q if rotated is None else rotated).copy_(turned(q))
    pages.write(slot_mapping, turned(k), v)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos_sin: Tensor,
    positions: Tensor,
    pages: KvPages,
    slot_mapping: Tensor,
) -> None:
    num_tokens, _, head_dim = q.shape
    assert q.stride()[1:] == k.stride()[1:] == v.stride()[1:] == (head_dim, 1), q.stride()
    assert k.shape[1:] == v.shape[1:] == (pages.num_kv_heads, pages.head_dim), k.shape
    assert pages.tensor.is_contiguous()
    assert k.dtype == v.dtype == q.dtype and pages.dtype in (q.dtype, torch.int8), pages.dtype
    assert positions.dtype == slot_mapping.dtype == torch.int64, positions.dtype
    assert positions.shape == slot_mapping.shape == (num_tokens,), positions.shape
    assert cos_sin.dtype == torch.float32 and cos_sin.is_contiguous()
    assert cos_sin.shape[1] == head_dim <= MAX_HEAD_DIM and head_dim % 2 == 0, cos_sin.shape
