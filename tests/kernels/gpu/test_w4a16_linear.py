"""Products with weights of 4 bits against the numbers that went into them, in double precision."""

import math

import pytest
import torch
from torch import Tensor

from octavo.kernels.gpu import w4a16_linear as gpu
from octavo.kernels.gpu.tiles import MAX_SPLIT_TILES
from octavo.kernels.int4_weight import Int4Weight, pack_int4_weight
from octavo.kernels.w4a16_linear import w4a16_linear


def random_weight(
    out_features: int, in_features: int, group_size: int, device: str
) -> tuple[Int4Weight, Tensor]:
    """Return a weight, and what its numbers stand for, float64 [out_features, in_features]."""
    values = torch.randint(16, (out_features, in_features), dtype=torch.uint8)
    num_groups = 1 if group_size == -1 else -(-in_features // group_size)
    scales = torch.rand(num_groups, out_features).add_(0.5).div_(math.sqrt(in_features)).half()
    zero_points = torch.randint(16, (num_groups, out_features), dtype=torch.uint8)
    groups = torch.arange(in_features) // (in_features if group_size == -1 else group_size)
    exact = (values.double() - zero_points[groups].T) * scales[groups].T.double()
    packed = pack_int4_weight(
        values.to(device), scales.to(device), zero_points.to(device), group_size
    )
    return packed, exact.to(device)


def assert_product(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """Compare with the exact product: what float32 sums and one rounding explain."""
    expected = x.double() @ weight.T
    size = x.double().abs() @ weight.abs().T
    if bias is not None:
        expected = expected + bias.double()
    allowed = torch.finfo(out.dtype).eps * expected.abs() + 1e-5 * size
    assert ((out.double() - expected).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("group_size", [32, 64, 128, 256, -1])
@pytest.mark.parametrize(
    ("num_tokens", "out_features", "in_features"),
    [(1, 8, 128), (5, 200, 416), (17, 130, 512), (70, 129, 288)],
)
def test_matches_the_product_of_the_numbers(
    device: str,
    num_tokens: int,
    out_features: int,
    in_features: int,
    group_size: int,
    dtype: torch.dtype,
) -> None:
    packed, weight = random_weight(out_features, in_features, group_size, device)
    x = torch.randn(num_tokens, in_features).to(device, dtype)
    bias = torch.randn(out_features).to(device, dtype)
    out = w4a16_linear(x, packed, bias)
    assert out.dtype == dtype and out.shape == (num_tokens, out_features)
    assert_product(out, x, weight, bias)


def test_programs_that_share_a_tile_leave_their_counters_as_they_were(device: str) -> None:
    packed, weight = random_weight(72, 128 * 13, 128, device)
    arrivals = torch.zeros(MAX_SPLIT_TILES, dtype=torch.int32, device=device)
    x = torch.randn(3, 128 * 13).to(device, torch.float16)
    first, second = (w4a16_linear(x, packed, arrivals=arrivals) for _ in range(2))
    assert_product(first, x, weight)
    assert torch.equal(first, second)
    assert not arrivals.any()


def test_inputs_in_another_order(device: str) -> None:
    packed, weight = random_weight(40, 256, 64, device)
    permutation = torch.randperm(256, device=device)
    permuted = Int4Weight(packed.words, packed.scales_and_zeros, 64, 256, permutation)
    x = torch.randn(4, 256).to(device, torch.float16)
    assert_product(w4a16_linear(x, permuted), x[:, permutation], weight)


def test_no_tokens(device: str) -> None:
    packed, _ = random_weight(40, 128, 64, device)
    x = torch.empty(0, 128, dtype=torch.float16, device=device)
    assert w4a16_linear(x, packed).shape == (0, 40)


def test_other_activations_are_refused(device: str) -> None:
    packed, _ = random_weight(40, 128, 64, device)
    with pytest.raises(ValueError, match="float16 or bfloat16"):
        gpu.w4a16_linear(torch.randn(1, 128, device=device), packed)
