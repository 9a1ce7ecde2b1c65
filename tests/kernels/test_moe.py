"""octavo.kernels.moe: results are those of a plain loop, in double precision."""

import pytest
import torch
from torch.nn import functional as F

from octavo.kernels.moe import Experts, moe
from octavo.kernels.moe_routing import Routing, route


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_results_are_those_of_a_loop_over_tokens(activation: str) -> None:
    experts = Experts(
        gate_up=torch.randn(5, 14, 10),
        down=torch.randn(5, 10, 7),
        activation="silu" if activation == "silu" else "gelu",
    )
    x = torch.randn(6, 10)
    expert_ids, weights = route(torch.randn(6, 5), Routing(top_k=2))
    expert_ids[3, 1] = -1
    expected = torch.zeros(6, 10, dtype=torch.float64)
    for token in range(6):
        for expert, weight in zip(expert_ids[token].tolist(), weights[token], strict=True):
            if expert >= 0:
                gate_up = experts.gate_up[expert].double() @ x[token].double()
                gate, up = gate_up[:7], gate_up[7:]
                gate = F.silu(gate) if activation == "silu" else F.gelu(gate, approximate="tanh")
                expected[token] += weight * (experts.down[expert].double() @ (gate * up))
    torch.testing.assert_close(
        moe(x, expert_ids, weights, experts).double(), expected, rtol=1e-5, atol=1e-5
    )
