"""The feed-forward layers of a mixture of experts, and who goes where, on the shapes of a model."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from octavo.kernels.moe import Experts, moe, moe_reference
from octavo.kernels.moe_routing import Routing, route, route_reference

from .kernel_case import Cost, Inputs, KernelCase, all_bytes, at_once


def expert_cases(
    num_tokens: int, hidden_size: int, dim: int, num_experts: int, top_k: int
) -> Iterator[KernelCase]:
    """Yield routing and experts of a layer; Qwen3-30B-A3B has 2048, 768, 128 and 8."""
    yield routing_case(num_tokens, num_experts, top_k)
    yield moe_case(num_tokens, hidden_size, dim, num_experts, top_k)


def routing_case(num_tokens: int, num_experts: int, top_k: int) -> KernelCase:
    routing = Routing(top_k=top_k)

    def make(device: str, dtype: torch.dtype) -> Inputs:
        return [torch.randn(num_tokens, num_experts, device=device, dtype=dtype)]

    return KernelCase(
        "moe_routing",
        f"{num_tokens} x {top_k} of {num_experts}",
        make,
        at_once(lambda logits: route(logits, routing)),
        lambda logits: route_reference(logits, routing),
        lambda inputs: Cost(inputs[0].nbytes + num_tokens * top_k * 8),
    )


def moe_case(
    num_tokens: int, hidden_size: int, dim: int, num_experts: int, top_k: int
) -> KernelCase:
    """Every token goes to experts drawn at random; of the others no weights need to be read."""

    def make(device: str, dtype: torch.dtype) -> Inputs:
        def weight(*shape: int) -> Tensor:
            return torch.randn(shape, device=device).div(math.sqrt(shape[-1])).to(dtype)

        logits = torch.randn(num_tokens, num_experts, device=device)
        return [
            torch.randn(num_tokens, hidden_size, device=device, dtype=dtype),
            *route_reference(logits, Routing(top_k=top_k)),
            weight(num_experts, 2 * dim, hidden_size),
            weight(num_experts, hidden_size, dim),
        ]

    def run(
        x: Tensor, expert_ids: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor
    ) -> Tensor:
        return moe(x, expert_ids, weights, Experts(gate_up=gate_up, down=down))

    def reference(
        x: Tensor, expert_ids: Tensor, weights: Tensor, gate_up: Tensor, down: Tensor
    ) -> Tensor:
        return moe_reference(x, expert_ids, weights, Experts(gate_up=gate_up, down=down))

    def cost(inputs: Inputs) -> Cost:
        x, expert_ids, weights, gate_up, down = inputs
        num_read = torch.bincount(expert_ids.flatten(), minlength=num_experts).count_nonzero()
        num_bytes = (gate_up.nbytes + down.nbytes) * int(num_read) // num_experts
        flops = 6 * num_tokens * top_k * hidden_size * dim
        return Cost(num_bytes + all_bytes([x, expert_ids, weights], x).num_bytes, flops)

    return KernelCase(
        "moe",
        f"{num_tokens} x {hidden_size}, {top_k} of {num_experts} experts of {dim}",
        make,
        at_once(run),
        reference,
        cost,
    )
