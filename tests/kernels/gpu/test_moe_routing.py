"""Routing of a mixture of experts on the GPU: experts and weights are those of the reference."""

import math

import pytest
import torch

from octavo.kernels.moe_routing import Routing, route, route_reference
from tests.kernels.routings import ROUTINGS, router_logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_experts", "routing"), ROUTINGS)
@pytest.mark.parametrize("has_bias", [False, True])
def test_experts_are_those_of_the_reference(
    device: str, num_experts: int, routing: Routing, has_bias: bool, dtype: torch.dtype
) -> None:
    """In bfloat16 some of the logits are equal."""
    logits, bias = router_logits(37, num_experts, has_bias)
    logits = logits.to(device, dtype)
    bias = None if bias is None else bias.to(device)
    experts, weights = route(logits, routing, bias)
    expected_experts, expected_weights = route_reference(logits, routing, bias)
    assert torch.equal(experts, expected_experts)
    torch.testing.assert_close(weights, expected_weights, rtol=1e-5, atol=1e-6)


# The interpreter's, of numbers that are meant to be none.
@pytest.mark.filterwarnings("ignore:All-NaN slice", "ignore:invalid value encountered in subtract")
@pytest.mark.parametrize(("num_experts", "routing"), ROUTINGS)
def test_a_token_that_is_not_a_number_goes_to_experts_there_are(
    device: str, num_experts: int, routing: Routing
) -> None:
    logits, _ = router_logits(3, num_experts, has_bias=False)
    logits[1] = math.nan
    logits = logits.to(device)
    experts, weights = route(logits, routing)
    assert ((experts >= 0) & (experts < num_experts)).all()
    assert weights[1].isnan().all()
    others = route_reference(logits[::2], routing)
    assert torch.equal(experts[::2], others[0])
    torch.testing.assert_close(weights[::2], others[1], rtol=1e-5, atol=1e-6)


def test_no_tokens_go_nowhere(device: str) -> None:
    experts, weights = route(torch.zeros(0, 8, device=device), Routing(top_k=2))
    assert experts.shape == weights.shape == (0, 2)
