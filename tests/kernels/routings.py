"""Ways to route, as models have them and odd ones, and logits of a router to route by."""

import torch
from torch import Tensor

from octavo.kernels.moe_routing import Routing

ROUTINGS = [
    (8, Routing(top_k=2)),
    (5, Routing(top_k=5, is_normalized=False)),
    (60, Routing(top_k=4, scores="sigmoid", scale=2.5)),
    (64, Routing(top_k=6, num_groups=8, num_top_groups=3, is_normalized=False)),
    (12, Routing(top_k=3, scores="sigmoid", num_groups=3, num_top_groups=2, scale=0.5)),
    (160, Routing(top_k=7, scores="sigmoid", num_groups=8, num_top_groups=4, scale=16.0)),
]


def router_logits(
    num_tokens: int, num_experts: int, has_bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Of each token, and the bias of each expert, or None."""
    bias = 0.3 * torch.randn(num_experts) if has_bias else None
    return 2 * torch.randn(num_tokens, num_experts), bias
