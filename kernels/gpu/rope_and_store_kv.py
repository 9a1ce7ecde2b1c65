"""QK-norm, rotary embedding and the write into the cache on a GPU, in one launch.

A program has one token's query heads of one KV head, with that KV head's key and value.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization


def rope_and_store_kv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos_sin: Tensor,
    positions: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slot_mapping: Tensor,
    *,
    rotated: Tensor | None = None,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = 0.0,
) -> None:
    """Rotate `q`, and write rotated `k` and `v` to their slots of the cache.

    Args:
        q: [num_tokens, num_heads, head_dim]; k, v: [num_tokens, num_kv_heads, head_dim]. They may
            be views into one fused output, as kernels.rope_and_store_kv takes them.
        cos_sin: float32 [max_positions, rotary_dim]: cosines of the rotary_dim / 2 angles, then
            sines; dimensions of a head past rotary_dim are not rotated.
        positions: int64 or int32 [num_tokens], rows of `cos_sin`.
        k_cache, v_cache: [num_blocks, block_size, num_kv_heads, head_dim], contiguous; dtype of q,
            or float8_e4m3fn, which holds keys / k_scale and values / v_scale.
        slot_mapping: int64 or int32 [num_tokens]; nothing is written of a token whose slot is -1.
        rotated: like q, where the rotated queries go; None: into `q` itself.
        q_norm, k_norm: [head_dim], dtype of q, or both None: weights of an RMSNorm of each head
            before it is rotated, with `eps`.
    """
    num_tokens, num_heads, head_dim = q.shape
    num_kv_heads, rotary_dim = k.shape[1], cos_sin.shape[1]
    rotated = q if rotated is None else rotated
    _check(q, k, v, cos_sin, k_cache, v_cache, rotated)
    assert (q_norm is None) == (k_norm is None)
    launch = _launch_config(num_heads // num_kv_heads, head_dim, rotary_dim)
    _rope_and_store_kv_kernel[(num_tokens, num_kv_heads)](
        q_ptr=q,
        k_ptr=k,
        v_ptr=v,
        rotated_ptr=rotated,
        q_norm_ptr=q_norm,
        k_norm_ptr=k_norm,
        cos_sin_ptr=cos_sin,
        positions_ptr=positions,
        k_cache_ptr=k_cache,
        v_cache_ptr=v_cache,
        slot_mapping_ptr=slot_mapping,
        q_stride=q.stride(0),
        k_stride=k.stride(0),
        v_stride=v.stride(0),
        rotated_stride=rotated.stride(0),
        eps=eps,
        k_inverse_scale=1 / k_scale,
        v_inverse_scale=1 / v_scale,
        NUM_KV_HEADS=num_kv_heads,
        GROUP=num_heads // num_kv_heads,
        HEAD_DIM=head_dim,
        ROTARY_DIM=rotary_dim,
        GROUP_BLOCK=launch.group_block,
        HALF_BLOCK=launch.half_block,
        REST_BLOCK=launch.rest_block,
        num_warps=launch.num_warps,
    )


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos_sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    rotated: Tensor,
) -> None:
    _, num_heads, head_dim = q.shape
    assert rotated.shape == q.shape and rotated.stride()[1:] == (head_dim, 1), rotated.shape
    assert rotated.dtype == q.dtype
    assert q.stride()[1:] == k.stride()[1:] == v.stride()[1:] == (head_dim, 1), q.stride()
    assert k.shape == v.shape and num_heads % k.shape[1] == 0, k.shape
    assert k_cache.shape == v_cache.shape and k_cache.shape[2:] == k.shape[1:], k_cache.shape
    assert k_cache.is_contiguous() and v_cache.is_contiguous()
    assert k_cache.dtype == v_cache.dtype in (q.dtype, torch.float8_e4m3fn), k_cache.dtype
    assert cos_sin.dtype == torch.float32 and cos_sin.is_contiguous()
    assert cos_sin.shape[1] <= head_dim and cos_sin.shape[1] % 2 == 0, cos_sin.shape


class _LaunchConfig(NamedTuple):
    """Room for query heads, for half of the rotated dimensions, and for the others."""

    group_block: int
    half_block: int
    rest_block: int
    num_warps: int


def _launch_config(group: int, head_dim: int, rotary_dim: int) -> _LaunchConfig:
    """8 numbers of each half a thread: loads of 16 bytes; not yet measured."""
    group_block = triton.next_power_of_2(group)
    half_block = triton.next_power_of_2(rotary_dim // 2)
    rest_block = triton.next_power_of_2(max(1, head_dim - rotary_dim))
    num_warps = max(1, min(8, group_block * max(half_block, rest_block) // 256))
    return _LaunchConfig(group_block, half_block, rest_block, num_warps)


# Of models there are, (query heads of a KV head, head_dim, rotary_dim): Phi and GLM rotate a part.
_AOT_HEADS = (
    (1, 64, 64),
    (1, 80, 32),
    (1, 96, 96),
    (4, 128, 128),
    (7, 64, 64),
    (8, 128, 128),
    (8, 256, 256),
    (16, 128, 64),
)


def aot_specializations() -> Iterator[Specialization]:
    for heads, has_norm in product(_AOT_HEADS, (False, True)):
        for dtype, cache in (("bf16", "bf16"), ("fp16", "fp16"), ("bf16", "fp8e4nv")):
            yield _specialization(*heads, dtype, cache, has_norm)


def _specialization(
    group: int, head_dim: int, rotary_dim: int, dtype: str, cache: str, has_norm: bool
) -> Specialization:
    launch = _launch_config(group, head_dim, rotary_dim)
    signature = dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "rotated_ptr"), f"*{dtype}")
    signature |= dict.fromkeys(("k_cache_ptr", "v_cache_ptr"), f"*{cache}")
    signature |= dict.fromkeys(("positions_ptr", "slot_mapping_ptr"), "*i64")
    strides = ("q_stride", "k_stride", "v_stride", "rotated_stride")
    signature |= dict.fromkeys(strides, "i32:16")
    signature |= dict.fromkeys(("eps", "k_inverse_scale", "v_inverse_scale"), "fp32")
    signature["cos_sin_ptr"] = "*fp32"
    constexprs: dict[str, object] = {
        "NUM_KV_HEADS": 8,
        "GROUP": group,
        "HEAD_DIM": head_dim,
        "ROTARY_DIM": rotary_dim,
        "GROUP_BLOCK": launch.group_block,
        "HALF_BLOCK": launch.half_block,
        "REST_BLOCK": launch.rest_block,
    }
    norms = ("q_norm_ptr", "k_norm_ptr")
    if has_norm:
        signature |= dict.fromkeys(norms, f"*{dtype}")
    else:
        constexprs |= dict.fromkeys(norms)
    return Specialization(_rope_and_store_kv_kernel, signature, constexprs, launch.num_warps, 3)


@triton.jit
def _rope_and_store_kv_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    rotated_ptr,
    q_norm_ptr,
    k_norm_ptr,
    cos_sin_ptr,
    positions_ptr,
    k_cache_ptr,
    v_cache_ptr,
    slot_mapping_ptr,
    q_stride,
    k_stride,
    v_stride,
    rotated_stride,
    eps,
    k_inverse_scale,
    v_inverse_scale,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    GROUP_BLOCK: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST_BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    slot = tl.load(slot_mapping_ptr + token).to(tl.int64)
    position = tl.load(positions_ptr + token).to(tl.int64)

    half = tl.arange(0, HALF_BLOCK)  # [HALF_BLOCK]
    cos_ptrs = cos_sin_ptr + position * ROTARY_DIM + half
    is_half = half < ROTARY_DIM // 2
    cos = tl.load(cos_ptrs, mask=is_half, other=0.0)[None, :]
    sin = tl.load(cos_ptrs + ROTARY_DIM // 2, mask=is_half, other=0.0)[None, :]

    group = tl.arange(0, GROUP_BLOCK)  # [GROUP_BLOCK]
    heads = (kv_head * GROUP + group) * HEAD_DIM
    q_ptrs = q_ptr + token * q_stride + heads
    is_head = group < GROUP
    a, b, rest = _load_heads(q_ptrs, is_head, HEAD_DIM, ROTARY_DIM, HALF_BLOCK, REST_BLOCK)
    if q_norm_ptr is not None:
        a, b, rest = _normalized_heads(a, b, rest, q_norm_ptr, eps, HEAD_DIM, ROTARY_DIM)
    _store_heads(
        rotated_ptr + token * rotated_stride + heads,
        is_head,
        a * cos - b * sin,
        b * cos + a * sin,
        rest,
        1.0,
        HEAD_DIM,
        ROTARY_DIM,
    )

    one = tl.arange(0, 1)  # [1]
    k_ptrs = k_ptr + token * k_stride + kv_head * HEAD_DIM + one
    a, b, rest = _load_heads(k_ptrs, one == 0, HEAD_DIM, ROTARY_DIM, HALF_BLOCK, REST_BLOCK)
    if k_norm_ptr is not None:
        a, b, rest = _normalized_heads(a, b, rest, k_norm_ptr, eps, HEAD_DIM, ROTARY_DIM)
    is_kept = (one == 0) & (slot >= 0)
    in_cache = (slot * NUM_KV_HEADS + kv_head) * HEAD_DIM
    _store_heads(
        k_cache_ptr + in_cache + one,
        is_kept,
        a * cos - b * sin,
        b * cos + a * sin,
        rest,
        k_inverse_scale,
        HEAD_DIM,
        ROTARY_DIM,
    )

    v_ptrs = v_ptr + token * v_stride + kv_head * HEAD_DIM + one
    a, b, rest = _load_heads(v_ptrs, is_kept, HEAD_DIM, ROTARY_DIM, HALF_BLOCK, REST_BLOCK)
    _store_heads(
        v_cache_ptr + in_cache + one, is_kept, a, b, rest, v_inverse_scale, HEAD_DIM, ROTARY_DIM
    )


@triton.jit
def _load_heads(
    head_ptrs,  # [HEADS]
    is_head,  # [HEADS]
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
    REST_BLOCK: tl.constexpr,
):
    """Return both rotated halves and the rest of some heads, float32, with zeros for padding."""
    half = tl.arange(0, HALF_BLOCK)
    rest = tl.arange(0, REST_BLOCK)
    is_half = is_head[:, None] & (half < ROTARY_DIM // 2)[None, :]
    is_rest = is_head[:, None] & (rest < HEAD_DIM - ROTARY_DIM)[None, :]
    half_ptrs = head_ptrs[:, None] + half[None, :]  # [HEADS, HALF_BLOCK]
    rest_ptrs = head_ptrs[:, None] + ROTARY_DIM + rest[None, :]  # [HEADS, REST_BLOCK]
    a = tl.load(half_ptrs, mask=is_half, other=0.0)
    b = tl.load(half_ptrs + ROTARY_DIM // 2, mask=is_half, other=0.0)
    others = tl.load(rest_ptrs, mask=is_rest, other=0.0)
    return a.to(tl.float32), b.to(tl.float32), others.to(tl.float32)


@triton.jit
def _normalized_heads(
    a,  # [HEADS, HALF_BLOCK]
    b,  # [HEADS, HALF_BLOCK]
    rest,  # [HEADS, REST_BLOCK]
    weight_ptr,
    eps,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
):
    square = tl.sum(a * a, axis=1) + tl.sum(b * b, axis=1) + tl.sum(rest * rest, axis=1)
    inverse_rms = tl.rsqrt(square / HEAD_DIM + eps)[:, None]  # [HEADS, 1]
    # As heads are loaded: the weight is one that all of them share.
    one = tl.arange(0, 1)
    weight_a, weight_b, weight_rest = _load_heads(
        weight_ptr + one, one == 0, HEAD_DIM, ROTARY_DIM, a.shape[1], rest.shape[1]
    )
    return a * inverse_rms * weight_a, b * inverse_rms * weight_b, rest * inverse_rms * weight_rest


@triton.jit
def _store_heads(
    head_ptrs,  # [HEADS]
    is_head,  # [HEADS]
    a,  # [HEADS, HALF_BLOCK]
    b,  # [HEADS, HALF_BLOCK]
    rest,  # [HEADS, REST_BLOCK]
    factor,
    HEAD_DIM: tl.constexpr,
    ROTARY_DIM: tl.constexpr,
):
    """Write heads, times a factor; a number beyond the largest of fp8 becomes that."""
    half = tl.arange(0, a.shape[1])
    others = tl.arange(0, rest.shape[1])
    is_half = is_head[:, None] & (half < ROTARY_DIM // 2)[None, :]
    is_rest = is_head[:, None] & (others < HEAD_DIM - ROTARY_DIM)[None, :]
    half_ptrs = head_ptrs[:, None] + half[None, :]
    rest_ptrs = head_ptrs[:, None] + ROTARY_DIM + others[None, :]
    tl.store(half_ptrs, _stored(a * factor, half_ptrs), mask=is_half)
    tl.store(half_ptrs + ROTARY_DIM // 2, _stored(b * factor, half_ptrs), mask=is_half)
    tl.store(rest_ptrs, _stored(rest * factor, rest_ptrs), mask=is_rest)


@triton.jit
def _stored(x, ptrs):
    kind: tl.constexpr = ptrs.dtype.element_ty
    if kind == tl.float8e4nv:
        x = tl.clamp(x, -448.0, 448.0)
    return x.to(kind)
