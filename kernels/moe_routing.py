"""Routing of a mixture of experts: which experts each token goes to, and with what weights.

    scores = softmax(logits) or sigmoid(logits)
    experts = the top_k largest of scores + bias, in the best groups only
    weights = scores of these, / their sum, · scale

Sources: Switch Transformers (Fedus et al., 2021); the limit to groups of experts and the bias that
balances their load are DeepSeek-V2's and V3's (DeepSeek-AI, 2024).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .gpu.interpreter import interpreting


@dataclass(frozen=True, kw_only=True, slots=True)
class Routing:
    """How a model routes.

    Attributes:
        top_k: experts of a token.
        scores: what makes scores of the router's logits.
        is_normalized: whether the weights of a token are divided by their sum.
        num_groups: into how many groups of equal size, of neighbours, the experts are divided.
        num_top_groups: groups whose experts a token may go to: those with the largest score, which
            is that of their best expert, or with a bias the sum of their two best; equal ones the
            lower first.
        scale: what the weights are multiplied by at last.
    """

    top_k: int
    scores: Literal["softmax", "sigmoid"] = "softmax"
    is_normalized: bool = True
    num_groups: int = 1
    num_top_groups: int = 1
    scale: float = 1.0


def route(logits: Tensor, routing: Routing, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choose the experts of each token; of equal ones those with the lower number.

    Args:
        logits: [num_tokens, num_experts] of the router, contiguous; computed with in float32.
        bias: float32 [num_experts], added to the scores where experts are chosen, and only there.
    Returns:
        int32 [num_tokens, top_k], experts, the best first, and float32 [num_tokens, top_k], their
        weights. Where a token's logits are not numbers its weights are not, its experts any.
    """
    num_experts = logits.shape[1]
    assert num_experts % routing.num_groups == 0
    assert routing.top_k * routing.num_groups <= num_experts * routing.num_top_groups
    if logits.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import moe_routing as gpu

        return gpu.route(logits, routing, bias)
    return route_reference(logits, routing, bias)


def route_reference(
    logits: Tensor, routing: Routing, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    wide = logits.float()
    scores = wide.softmax(-1) if routing.scores == "softmax" else wide.sigmoid()
    wanted = scores if bias is None else scores + bias
    groups = wanted.view(len(wanted), routing.num_groups, -1)
    best = groups.sort(-1, descending=True).values[..., : 1 if bias is None else 2]
    top_groups = _top(best.sum(-1), routing.num_top_groups)
    is_allowed = torch.zeros(groups.shape[:2], dtype=torch.bool, device=logits.device)
    is_allowed.scatter_(1, top_groups, True)
    experts = _top(groups.masked_fill(~is_allowed[..., None], -torch.inf).flatten(1), routing.top_k)
    weights = scores.gather(1, experts)
    if routing.is_normalized:
        weights = weights / weights.sum(-1, keepdim=True)
    return experts.int(), weights * routing.scale


def _top(values: Tensor, count: int) -> Tensor:
    return values.sort(dim=-1, descending=True, stable=True).indices[:, :count]
