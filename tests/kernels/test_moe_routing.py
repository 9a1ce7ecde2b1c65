"""octavo.kernels.moe_routing: the experts and weights that a loop over tokens finds."""

import math
from dataclasses import replace

import pytest
import torch

from octavo.kernels.moe_routing import Routing, route
from tests.kernels.routings import ROUTINGS, router_logits


def plain_route(
    logits: list[float], routing: Routing, bias: list[float] | None
) -> tuple[list[int], list[float]]:
    """One token's experts and weights, over lists."""
    if routing.scores == "sigmoid":
        scores = [1 / (1 + math.exp(-logit)) for logit in logits]
    else:
        total = sum(math.exp(logit) for logit in logits)
        scores = [math.exp(logit) / total for logit in logits]
    wanted = [score + (bias[i] if bias else 0) for i, score in enumerate(scores)]
    size = len(logits) // routing.num_groups

    def group_score(group: int) -> float:
        members = sorted(wanted[group * size : (group + 1) * size], reverse=True)
        return sum(members[: 2 if bias else 1])

    groups = sorted(range(routing.num_groups), key=lambda group: (-group_score(group), group))
    allowed = [e for e in range(len(logits)) if e // size in groups[: routing.num_top_groups]]
    experts = sorted(allowed, key=lambda e: (-wanted[e], e))[: routing.top_k]
    weights = [scores[e] for e in experts]
    total = sum(weights) if routing.is_normalized else 1
    return experts, [weight / total * routing.scale for weight in weights]


@pytest.mark.parametrize(("num_experts", "routing"), ROUTINGS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_experts_are_those_of_a_loop(num_experts: int, routing: Routing, has_bias: bool) -> None:
    logits, bias = router_logits(20, num_experts, has_bias)
    experts, weights = route(logits, routing, bias)
    for token, row in enumerate(logits.tolist()):
        expected, expected_weights = plain_route(
            row, routing, None if bias is None else bias.tolist()
        )
        assert experts[token].tolist() == expected
        torch.testing.assert_close(weights[token], torch.tensor(expected_weights))


def test_of_equal_experts_the_first_are_chosen() -> None:
    routing = Routing(top_k=3, num_groups=4, num_top_groups=2)
    experts, weights = route(torch.zeros(1, 8), routing)
    assert experts.tolist() == [[0, 1, 2]]
    torch.testing.assert_close(weights, torch.full((1, 3), 1 / 3))


def test_more_experts_than_the_best_groups_have_are_refused() -> None:
    routing = Routing(top_k=4, num_groups=4, num_top_groups=2)
    route(torch.zeros(1, 8), routing)
    with pytest.raises(AssertionError):
        route(torch.zeros(1, 8), replace(routing, top_k=5))
