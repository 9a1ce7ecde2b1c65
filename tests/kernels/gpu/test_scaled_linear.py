"""Products of 8-bit numbers with scales against the same in double precision."""

import pytest
import torch
from torch import Tensor

from octavo.kernels.gpu.tiles import MAX_SPLIT_TILES
from octavo.kernels.scaled_linear import ScaledWeight, scaled_linear

# Tokens, outputs, inputs: odd ones; several tiles of each; enough inputs to be split.
SHAPES = pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 130, 48), (17, 40, 300), (70, 129, 144), (5, 72, 2048)]
)
QUANTIZED = pytest.mark.parametrize("quantized", [torch.float8_e4m3fn, torch.int8], ids=str)
OUT_DTYPES = pytest.mark.parametrize(
    "out_dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str
)


def random_numbers(shape: tuple[int, int], quantized: torch.dtype, device: str) -> Tensor:
    if quantized == torch.int8:
        return torch.randint(-128, 128, shape, device=device).to(torch.int8)
    return (torch.randn(shape, device=device) * 8).to(quantized)


def random_scales(*shape: int, device: str) -> Tensor:
    return torch.rand(shape, device=device).add_(0.5).div_(100)


def assert_product(
    out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, out_dtype: torch.dtype
) -> None:
    """Compare with the exact product: what float32 sums and one rounding explain."""
    expected = x.double() @ weight.T.double() + bias.double()
    size = x.double().abs() @ weight.T.double().abs() + bias.double().abs()
    # Hopper's tensor cores sum fp8 products in fewer bits than float32 has.
    relative = 2**-11 if out.is_cuda else 1e-6
    allowed = torch.finfo(out_dtype).eps * expected.abs() + relative * size
    assert out.dtype == out_dtype and out.shape == expected.shape
    assert ((out.double() - expected).abs() <= allowed).all()


@SHAPES
@QUANTIZED
@OUT_DTYPES
@pytest.mark.parametrize("has_own_scales", [True, False])
def test_scales_of_tokens_and_outputs(
    device: str,
    shape: tuple[int, int, int],
    quantized: torch.dtype,
    out_dtype: torch.dtype,
    has_own_scales: bool,
) -> None:
    num_tokens, out_features, in_features = shape
    x = random_numbers((num_tokens, in_features), quantized, device)
    values = random_numbers((out_features, in_features), quantized, device)
    x_scales = random_scales(num_tokens if has_own_scales else 1, device=device)
    scales = random_scales(out_features if has_own_scales else 1, device=device)
    bias = torch.randn(out_features, device=device).to(out_dtype)
    out = scaled_linear(x, x_scales, ScaledWeight(values, scales), out_dtype, bias)
    exact_x, exact_weight = (
        each.double() * by[:, None].double() for each, by in ((x, x_scales), (values, scales))
    )
    assert_product(out, exact_x, exact_weight, bias, out_dtype)


@SHAPES
@OUT_DTYPES
def test_scales_of_blocks(device: str, shape: tuple[int, int, int], out_dtype: torch.dtype) -> None:
    num_tokens, out_features, in_features = shape
    num_blocks, num_out_blocks = -(-in_features // 128), -(-out_features // 128)
    x = random_numbers((num_tokens, in_features), torch.float8_e4m3fn, device)
    values = random_numbers((out_features, in_features), torch.float8_e4m3fn, device)
    x_scales = random_scales(num_blocks, num_tokens, device=device)
    scales = random_scales(num_out_blocks, num_blocks, device=device)
    bias = torch.randn(out_features, device=device).to(out_dtype)
    out = scaled_linear(x, x_scales, ScaledWeight(values, scales), out_dtype, bias)
    blocks = torch.arange(in_features, device=device) // 128
    out_blocks = torch.arange(out_features, device=device) // 128
    exact_x = x.double() * x_scales[blocks].T
    exact_weight = values.double() * scales[out_blocks][:, blocks]
    assert_product(out, exact_x, exact_weight, bias, out_dtype)


def test_more_tokens_than_a_band_of_tiles_has(device: str) -> None:
    x = random_numbers((2100, 16), torch.int8, device)
    values = random_numbers((130, 16), torch.int8, device)
    one = torch.ones(1, device=device)
    out = scaled_linear(x, one, ScaledWeight(values, one), torch.float32)
    assert torch.equal(out, (x.double() @ values.T.double()).float())


def test_whole_numbers_are_summed_exactly(device: str) -> None:
    x, values = torch.full((2, 700), 127, dtype=torch.int8), torch.full((3, 700), -127)
    values[:, 0] = 1
    one = torch.ones(1, device=device)
    weight = ScaledWeight(values.to(device, torch.int8), one)
    out = scaled_linear(x.to(device), one, weight, torch.float32)
    assert (out == 127 - 699 * 127 * 127).all()


@QUANTIZED
def test_programs_that_share_a_tile_leave_their_counters_as_they_were(
    device: str, quantized: torch.dtype
) -> None:
    x = random_numbers((2, 1664), quantized, device)
    one = torch.ones(1, device=device)
    weight = ScaledWeight(random_numbers((40, 1664), quantized, device), one)
    arrivals = torch.zeros(MAX_SPLIT_TILES, dtype=torch.int32, device=device)
    first, second = (
        scaled_linear(x, one, weight, torch.float32, arrivals=arrivals) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert not arrivals.any()


def test_no_tokens(device: str) -> None:
    one = torch.ones(1, device=device)
    weight = ScaledWeight(random_numbers((40, 64), torch.int8, device), one)
    x = torch.empty(0, 64, dtype=torch.int8, device=device)
    assert scaled_linear(x, one, weight, torch.bfloat16).shape == (0, 40)
