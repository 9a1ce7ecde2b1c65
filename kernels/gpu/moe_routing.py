"""Routing of a mixture of experts on the GPU: scores, groups and choice in one program a tile."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.moe_routing import Routing

from .aot import Specialization

# Scores that a program holds: 8 for each of 128 threads. Not yet measured.
_TILE_SIZE = 1024
_NUM_WARPS = 4


def route(logits: Tensor, routing: Routing, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """See ../moe_routing.py."""
    num_tokens, num_experts = logits.shape
    shape, device = (num_tokens, routing.top_k), logits.device
    expert_ids = torch.empty(shape, dtype=torch.int32, device=device)
    weights = torch.empty(shape, device=device)
    if num_tokens == 0:
        return expert_ids, weights
    constants = _constants(num_experts, routing, bias is not None)
    _route_kernel[triton.cdiv(num_tokens, constants["TOKENS"]),](
        logits_ptr=logits,
        bias_ptr=bias,
        expert_ids_ptr=expert_ids,
        weights_ptr=weights,
        num_tokens=num_tokens,
        scale=routing.scale,
        **constants,
        num_warps=_NUM_WARPS,
    )
    return expert_ids, weights


def _constants(num_experts: int, routing: Routing, has_bias: bool) -> dict[str, int]:
    groups = triton.next_power_of_2(routing.num_groups)
    members = triton.next_power_of_2(num_experts // routing.num_groups)
    return {
        "NUM_GROUPS": routing.num_groups,
        "GROUP_SIZE": num_experts // routing.num_groups,
        "NUM_TOP_GROUPS": routing.num_top_groups,
        "TOP_K": routing.top_k,
        "IS_SIGMOID": int(routing.scores == "sigmoid"),
        "IS_NORMALIZED": int(routing.is_normalized),
        "HAS_BIAS": int(has_bias),
        "TOKENS": max(1, _TILE_SIZE // (groups * members)),
        "GROUPS": groups,
        "MEMBERS": members,
        "RANKS": triton.next_power_of_2(routing.top_k),
    }


def aot_specializations() -> Iterator[Specialization]:
    """As Qwen3-30B-A3B, Mixtral 8x7B and DeepSeek-V3 route."""
    deepseek = Routing(top_k=8, scores="sigmoid", num_groups=8, num_top_groups=4, scale=2.5)
    for num_experts, routing in ((128, Routing(top_k=8)), (8, Routing(top_k=2)), (256, deepseek)):
        for dtype in ("bf16", "fp32"):
            signature = {"logits_ptr": f"*{dtype}", "bias_ptr": "*fp32"}
            signature |= {"expert_ids_ptr": "*i32", "weights_ptr": "*fp32"}
            signature |= {"num_tokens": "i32", "scale": "fp32"}
            constants = _constants(num_experts, routing, routing is deepseek)
            yield Specialization(_route_kernel, signature, constants, _NUM_WARPS, num_stages=3)


@triton.jit(do_not_specialize=["num_tokens"])
def _route_kernel(
    logits_ptr,
    bias_ptr,
    expert_ids_ptr,
    weights_ptr,
    num_tokens,
    scale,
    NUM_GROUPS: tl.constexpr,
    GROUP_SIZE: tl.constexpr,
    NUM_TOP_GROUPS: tl.constexpr,
    TOP_K: tl.constexpr,
    IS_SIGMOID: tl.constexpr,
    IS_NORMALIZED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUPS: tl.constexpr,
    MEMBERS: tl.constexpr,
    RANKS: tl.constexpr,
):
    NUM_EXPERTS: tl.constexpr = NUM_GROUPS * GROUP_SIZE
    tokens = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    places = tl.arange(0, GROUPS * MEMBERS)
    groups, members = places // MEMBERS, places % MEMBERS
    experts = groups * GROUP_SIZE + members
    is_expert = (groups < NUM_GROUPS) & (members < GROUP_SIZE)
    is_inside = (tokens < num_tokens)[:, None] & is_expert[None, :]  # [TOKENS, GROUPS * MEMBERS]
    logits = tl.load(
        logits_ptr + tokens[:, None] * NUM_EXPERTS + experts[None, :], mask=is_inside, other=0.0
    ).to(tl.float32)
    if IS_SIGMOID:
        scores = tl.sigmoid(logits)
    else:
        logits = tl.where(is_expert[None, :], logits, float("-inf"))
        scores = tl.exp(logits - tl.max(logits, axis=1)[:, None])
        scores = scores / tl.sum(scores, axis=1)[:, None]
    wanted = scores
    if HAS_BIAS:
        wanted += tl.load(bias_ptr + experts, mask=is_expert, other=0.0)[None, :]
    # What is not a number is wanted by nobody: or it would be all the same which place is the best,
    # one behind the last expert as well.
    is_wanted = is_expert[None, :] & (wanted == wanted)
    wanted = tl.where(is_wanted, wanted, float("-inf"))
    if NUM_TOP_GROUPS < NUM_GROUPS:
        wanted = _without_other_groups(wanted, NUM_TOP_GROUPS, HAS_BIAS, TOKENS, GROUPS, MEMBERS)

    ranks = tl.arange(0, RANKS)[None, :]
    chosen = tl.zeros((TOKENS, RANKS), tl.int32)
    weights = tl.zeros((TOKENS, RANKS), tl.float32)
    for rank in tl.static_range(TOP_K):
        best = tl.argmax(wanted, axis=1)[:, None]
        is_best = places[None, :] == best
        weight = tl.sum(tl.where(is_best, scores, 0.0), axis=1)[:, None]
        expert = tl.sum(tl.where(is_best, experts[None, :], 0), axis=1)[:, None]
        chosen = tl.where(ranks == rank, expert, chosen)
        weights = tl.where(ranks == rank, weight, weights)
        wanted = tl.where(is_best, float("-inf"), wanted)
    if IS_NORMALIZED:
        weights = weights / tl.sum(weights, axis=1)[:, None]
    is_inside = (tokens < num_tokens)[:, None] & (ranks < TOP_K)
    out = tokens[:, None] * TOP_K + ranks
    tl.store(expert_ids_ptr + out, chosen, mask=is_inside)
    tl.store(weights_ptr + out, weights * scale, mask=is_inside)


@triton.jit
def _without_other_groups(
    wanted,
    NUM_TOP_GROUPS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUPS: tl.constexpr,
    MEMBERS: tl.constexpr,
):
    """Minus infinity for the experts that are not in the best groups."""
    grouped = tl.reshape(wanted, (TOKENS * GROUPS, MEMBERS))
    best = tl.max(grouped, axis=1)
    if HAS_BIAS:
        members = tl.arange(0, MEMBERS)
        is_best = members[None, :] == tl.argmax(grouped, axis=1)[:, None]
        best += tl.max(tl.where(is_best, float("-inf"), grouped), axis=1)
    scores = tl.reshape(best, (TOKENS, GROUPS))
    groups = tl.arange(0, GROUPS)
    is_top = tl.zeros((TOKENS, GROUPS), tl.int32)
    for _ in tl.static_range(NUM_TOP_GROUPS):
        is_best = groups[None, :] == tl.argmax(scores, axis=1)[:, None]
        is_top = tl.where(is_best, 1, is_top)
        scores = tl.where(is_best, float("-inf"), scores)
    grouped = tl.reshape(wanted, (TOKENS, GROUPS, MEMBERS))
    grouped = tl.where(is_top[:, :, None] > 0, grouped, float("-inf"))
    return tl.reshape(grouped, (TOKENS, GROUPS * MEMBERS))
