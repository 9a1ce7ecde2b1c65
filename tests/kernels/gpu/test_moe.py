"""A mixture of experts on the GPU: the tokens are those of the reference."""

import pytest
import torch

from octavo.kernels.moe import Experts, moe, moe_reference
from octavo.kernels.quantize_rows import quantize_rows_reference

FP8 = torch.float8_e4m3fn

TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    ("num_tokens", "top_k", "num_experts"), [(1, 2, 4), (9, 3, 5), (140, 1, 2), (70, 2, 1)]
)
def test_results_are_those_of_the_reference(
    device: str, num_tokens: int, top_k: int, num_experts: int, dtype: torch.dtype
) -> None:
    """With few tokens for each expert and with many, some of which have none."""
    hidden_size, dim = 72, 40
    x = torch.randn(num_tokens, hidden_size).to(device, dtype)
    experts = Experts(
        gate_up=torch.randn(num_experts, 2 * dim, hidden_size).div(8).to(device, dtype),
        down=torch.randn(num_experts, hidden_size, dim).div(6).to(device, dtype),
        activation="silu" if top_k > 1 else "gelu",
    )
    expert_ids = torch.randint(num_experts, (num_tokens, top_k), dtype=torch.int32)
    expert_ids[num_tokens // 2 :, 0] = -1
    weights = torch.rand(num_tokens, top_k)
    arguments = (x, expert_ids.to(device), weights.to(device), experts)
    actual, expected = moe(*arguments), moe_reference(*arguments)
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("num_tokens", "num_experts"), [(5, 3), (150, 2)])
def test_weights_of_8_bits_are_multiplied_with_their_scales(
    device: str, num_tokens: int, num_experts: int
) -> None:
    """Rounding may fall to the other side where the reference's sum is another by a bit."""
    hidden_size, dim = 80, 48

    def quantized(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        values, scales = quantize_rows_reference(torch.randn(shape).view(-1, shape[-1]), FP8)
        return values.view(shape).to(device), scales.view(shape[:-1]).to(device)

    gate_up, gate_up_scales = quantized(num_experts, 2 * dim, hidden_size)
    down, down_scales = quantized(num_experts, hidden_size, dim)
    experts = Experts(
        gate_up=gate_up, down=down, gate_up_scales=gate_up_scales, down_scales=down_scales
    )
    x = torch.randn(num_tokens, hidden_size).to(device, torch.float16)
    expert_ids = torch.randint(-1, num_experts, (num_tokens, 2), dtype=torch.int32).to(device)
    weights = torch.rand(num_tokens, 2).to(device)
    actual = moe(x, expert_ids, weights, experts)
    expected = moe_reference(x, expert_ids, weights, experts)
    size = expected.float().square().mean().sqrt()
    assert (actual - expected).abs().max() < 0.03 * size
    assert (actual - expected).float().square().mean().sqrt() < 0.003 * size


def test_a_token_s_result_does_not_depend_on_the_others(device: str) -> None:
    """On which tile size it is computed with, it may."""
    x = torch.randn(12, 64, device=device)
    gate_up, down = torch.randn(4, 64, 64, device=device), torch.randn(4, 64, 32, device=device)
    experts = Experts(gate_up=gate_up, down=down)
    expert_ids = torch.randint(4, (12, 2), dtype=torch.int32, device=device)
    weights = torch.rand(12, 2, device=device)
    together = moe(x, expert_ids, weights, experts)
    assert torch.equal(moe(x[5:7], expert_ids[5:7], weights[5:7], experts), together[5:7])


def test_no_tokens_have_no_results(device: str) -> None:
    gate_up, down = torch.randn(2, 32, 16, device=device), torch.randn(2, 16, 16, device=device)
    nowhere = torch.zeros(0, 2, dtype=torch.int32, device=device)
    out = moe(
        torch.zeros(0, 16, device=device),
        nowhere,
        nowhere.float(),
        Experts(gate_up=gate_up, down=down),
    )
    assert out.shape == (0, 16)
