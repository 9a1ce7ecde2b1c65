"""One tile of keys and values for some rows of queries: what both attention kernels repeat.

    scores = soft_cap(scale · q · Kᵀ)        m' = max(m, row maximum of the scores)
    p = 2^(scores - m')                      l' = l · 2^(m - m') + row sum of p
                                             acc' = acc · 2^(m - m') + p · V

Scores are in units of log 2, so that an exponential is one instruction and the scale one factor.

Sources: Milakov and Gimelshein, Online normalizer calculation for softmax (2018);
FlashAttention-2 (Dao, 2023); the soft cap is Gemma 2's.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2_E = tl.constexpr(1.4426950408889634)
# Below every score, and a number: differences of it are never NaN.
NO_SCORE = tl.constexpr(-1e30)


def check_cache(q: Tensor, k_cache: Tensor, v_cache: Tensor) -> None:
    """Raise AssertionError unless queries and cache fit together and lie as they are read."""
    _, num_heads, head_dim = q.shape
    assert q.stride()[1:] == (head_dim, 1), q.stride()
    assert k_cache.shape == v_cache.shape and k_cache.shape[3] == head_dim, k_cache.shape
    assert k_cache.is_contiguous() and v_cache.is_contiguous()
    assert k_cache.dtype in (q.dtype, torch.float8_e4m3fn) and v_cache.dtype == k_cache.dtype
    assert num_heads % k_cache.shape[2] == 0, (num_heads, k_cache.shape)


@triton.jit
def load_blocks(
    block_table_ptr, tile_start, first_key, end_key, TILE: tl.constexpr, BLOCK_SIZE: tl.constexpr
):
    """Return the blocks of a tile's keys, [TILE]; where there is no key to read, any.

    Callers load them one tile ahead: so that the addresses of keys and values depend on no load
    of the same round of a loop, and Triton fetches these several tiles ahead.
    """
    positions = tile_start + tl.arange(0, TILE)
    is_key = (positions >= first_key) & (positions < end_key)
    return tl.load(block_table_ptr + _unsigned(positions) // BLOCK_SIZE, mask=is_key, other=0)


@triton.jit
def _unsigned(positions):
    """Return positions as what a division by a power of two is one shift of."""
    return positions.to(tl.uint32)


@triton.jit
def attend_tile(
    q,  # [ROWS, PADDED_DIM]
    acc,  # float32 [ROWS, PADDED_DIM]
    row_max,  # float32 [ROWS]
    row_sum,  # float32 [ROWS]
    k_ptr,  # at the KV head
    v_ptr,
    blocks,  # [TILE], of the keys
    tile_start,
    query_positions,  # [ROWS]
    first_key,  # keys before it, and from end_key on, are not read
    end_key,
    scale,  # of the scores, with the scale of the keys
    MASKED: tl.constexpr,  # False: each key of the tile is there, and visible to each row
    TILE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    WINDOW: tl.constexpr,  # 0: none
    SOFT_CAP: tl.constexpr,  # 0: none
):
    """Return acc, row_max and row_sum with one more tile of keys."""
    positions = tile_start + tl.arange(0, TILE)
    dims = tl.arange(0, PADDED_DIM)
    is_read = (dims < HEAD_DIM)[None, :]
    if MASKED:
        is_key = (positions >= first_key) & (positions < end_key)
        is_read = is_read & is_key[:, None]
    slots = blocks.to(tl.int64) * BLOCK_SIZE + _unsigned(positions) % BLOCK_SIZE
    offsets = slots[:, None] * (NUM_KV_HEADS * HEAD_DIM) + dims[None, :]  # [TILE, PADDED_DIM]

    # Numbers of 8 bits are exact in q's type.
    k = tl.load(k_ptr + offsets, mask=is_read, other=0.0).to(q.dtype)
    scores = tl.dot(q, k.T, input_precision="ieee")  # [ROWS, TILE]
    if SOFT_CAP > 0:
        scores = SOFT_CAP * (2 * tl.sigmoid(scores * (2 * scale / SOFT_CAP)) - 1)  # tanh
        scale = 1.0
    if MASKED:
        distance = query_positions[:, None] - positions[None, :]
        is_visible = distance >= 0
        if WINDOW > 0:
            is_visible &= distance < WINDOW
        scores = tl.where(is_visible, scores, -float("inf"))

    unit = scale * _LOG2_E
    new_max = tl.maximum(row_max, tl.max(scores, axis=1) * unit)
    p = tl.exp2(scores * unit - new_max[:, None])
    shrink = tl.exp2(row_max - new_max)
    row_sum = row_sum * shrink + tl.sum(p, axis=1)
    v = tl.load(v_ptr + offsets, mask=is_read, other=0.0).to(q.dtype)
    acc = tl.dot(p.to(q.dtype), v, acc * shrink[:, None], input_precision="ieee")
    return acc, new_max, row_sum
