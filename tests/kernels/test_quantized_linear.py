"""Products with quantized weights: exactly those of the bytes, and how far these are off."""

import ctypes
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from octavo.kernels.linear import Layout, add_linear, linear
from octavo.kernels.quantized_linear import (
    pack_quantized_weight,
    quantize_rows_reference,
    quantized_linear_reference,
    x_group_size,
)
from octavo.kernels.quantized_weight import QuantizedWeight, quantize_int4, quantize_int8
from octavo.kernels.threads import set_num_threads
from tests.kernels.closeness import DTYPES, assert_close


def quantize_q8(weight: Tensor) -> QuantizedWeight:
    """As GGUF's Q8_0 does, for any number of inputs."""
    out_features, in_features = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -in_features % 32)).view(out_features, -1, 32)
    scales = (padded.abs().amax(dim=2) / 127).half()
    values = (padded / scales.float()[:, :, None].clamp_min(1e-7)).round().clamp(-127, 127)
    return QuantizedWeight(
        Layout.Q8, values.to(torch.int8).view(out_features, -1)[:, :in_features], scales
    )


KINDS = pytest.mark.parametrize(
    "quantize", [quantize_int8, quantize_q8, quantize_int4], ids=["int8", "q8", "q4"]
)
# Odd sizes; a panel is 8 to 64 features wide, groups are of 32 and 64 inputs, and some 4,000 inputs
# are taken at a time.
SHAPES = pytest.mark.parametrize(
    ("out_features", "in_features"),
    [(1, 2), (64, 64), (65, 30), (200, 576), (7, 2500), (130, 9000)],
)
Quantize = Callable[[Tensor], QuantizedWeight]


def random_weight(out_features: int, in_features: int) -> Tensor:
    return torch.randn(out_features, in_features).div(math.sqrt(in_features))


def random_rows(num_rows: int, in_features: int) -> Tensor:
    """Activations as a model has them: mostly small, with outliers."""
    return torch.randn(num_rows, in_features) * torch.randn(in_features).exp()


@KINDS
@DTYPES
@SHAPES
@pytest.mark.parametrize("num_rows", [0, 1, 5, 6, 7, 64, 103])
def test_matches_the_exact_product_of_the_quantized_numbers(
    cpu: ctypes.CDLL,
    num_rows: int,
    out_features: int,
    in_features: int,
    dtype: torch.dtype,
    quantize: Quantize,
) -> None:
    x = random_rows(num_rows, in_features).to(dtype)
    weight = quantize(random_weight(out_features, in_features))
    packed = pack_quantized_weight(weight, dtype)
    assert packed.layout is weight.layout
    out = linear(x, packed)
    assert out.dtype == dtype
    expected = quantized_linear_reference(x, weight, torch.float64)
    assert_close(out, expected, slack=max(2.0, math.sqrt(in_features) / 10))


@KINDS
@DTYPES
@pytest.mark.parametrize(("num_rows", "out_features"), [(1, 1), (7, 70), (103, 130)])
def test_gated_and_added_to_the_residual_stream(
    cpu: ctypes.CDLL, num_rows: int, out_features: int, dtype: torch.dtype, quantize: Quantize
) -> None:
    x = random_rows(num_rows, 200).to(dtype)
    gated, plain = (quantize(random_weight(n * out_features, 200)) for n in (2, 1))
    sums = linear(x, pack_quantized_weight(gated, dtype, torch.float32)).double()
    gate, up = sums.chunk(2, dim=1)
    out = linear(x, pack_quantized_weight(gated, dtype, is_gated=True))
    assert_close(out, gate / (1 + torch.exp(-gate)) * up)
    residual = torch.randn(num_rows, out_features).to(dtype)
    sums = linear(x, pack_quantized_weight(plain, dtype, torch.float32)).double()
    expected = residual.double() + sums
    add_linear(residual, x, pack_quantized_weight(plain, dtype))
    assert_close(residual, expected)


@KINDS
def test_is_as_far_from_the_exact_product_as_rounding_explains(
    cpu: ctypes.CDLL, quantize: Quantize
) -> None:
    x, weight = random_rows(31, 576), random_weight(100, 576)
    quantized = quantize(weight)
    out = linear(x, pack_quantized_weight(quantized, torch.float32))
    _, scales = quantize_rows_reference(x, x_group_size(quantized.layout))
    x_error = (scales / 2).repeat_interleave(x_group_size(quantized.layout), dim=1).double()
    weight_error = (quantized.dequantized() - weight).abs().double()
    allowed = x_error @ (weight.abs() + weight_error).T + x.abs().double() @ weight_error.T
    assert ((out.double() - x.double() @ weight.double().T).abs() <= 1.001 * allowed).all()


@KINDS
def test_bfloat16_activations_can_be_answered_in_float32(
    cpu: ctypes.CDLL, quantize: Quantize
) -> None:
    x, weight = random_rows(9, 200).bfloat16(), quantize(random_weight(130, 200))
    out = linear(x, pack_quantized_weight(weight, torch.bfloat16, torch.float32))
    assert out.dtype == torch.float32
    assert_close(out, quantized_linear_reference(x, weight, torch.float64), slack=3)


@KINDS
@DTYPES
def test_works_without_a_compiler(no_library: None, dtype: torch.dtype, quantize: Quantize) -> None:
    x, weight = random_rows(9, 128).to(dtype), quantize(random_weight(70, 128))
    packed = pack_quantized_weight(weight, dtype)
    assert packed.layout is Layout.PLAIN
    assert_close(linear(x, packed), x.double() @ weight.dequantized().double().T, slack=3)


@KINDS
@pytest.mark.parametrize(("out_features", "in_features"), [(200, 576), (130, 9000)])
def test_a_row_has_the_same_bits_in_every_batch_and_with_any_number_of_threads(
    cpu: ctypes.CDLL, out_features: int, in_features: int, quantize: Quantize
) -> None:
    x = random_rows(230, in_features)
    packed = pack_quantized_weight(
        quantize(random_weight(out_features, in_features)), torch.float32
    )
    set_num_threads(1)
    alone = torch.cat([linear(row[None], packed) for row in x])
    for num_threads in (1, 2, 3, 7):
        set_num_threads(num_threads)
        for num_rows in (2, 3, 4, 5, 6, 7, 11, 13, 64, 97, 230):
            assert torch.equal(linear(x[:num_rows], packed), alone[:num_rows])


@KINDS
def test_the_largest_sums_do_not_overflow(cpu: ctypes.CDLL, quantize: Quantize) -> None:
    # All products of a group are the largest there are, of either sign.
    signs = torch.tensor([[1.0], [-1.0]])
    x, weight = signs.expand(2, 576).contiguous(), signs.expand(2, 576)
    quantized = quantize(weight)
    out = linear(x, pack_quantized_weight(quantized, torch.float32))
    assert_close(out, x.double() @ quantized.dequantized().double().T)


@KINDS
def test_rows_that_are_not_numbers_disturb_no_other_row(
    cpu: ctypes.CDLL, quantize: Quantize
) -> None:
    x = random_rows(7, 64)
    packed = pack_quantized_weight(quantize(random_weight(70, 64)), torch.float32)
    clean = linear(x, packed)
    x[3, 40] = torch.inf
    x[5, 1] = torch.nan
    out = linear(x, packed)
    assert out[[3, 5]].isnan().all()
    assert torch.equal(out[[0, 1, 2, 4, 6]], clean[[0, 1, 2, 4, 6]])


@KINDS
def test_zeros_and_numbers_too_small_for_a_scale(cpu: ctypes.CDLL, quantize: Quantize) -> None:
    packed = pack_quantized_weight(quantize(random_weight(70, 64)), torch.float32)
    for size in (0.0, 1e-38, 1e-45):
        assert not linear(torch.full((3, 64), size), packed).any()


def test_a_rounded_row_is_within_half_a_step() -> None:
    x = random_rows(5, 100)
    values, scales = quantize_rows_reference(x, 64)
    assert values.shape == (5, 2, 64) and values.abs().amax(dim=2).eq(127).all()
    restored = (values.double() * scales[:, :, None]).flatten(1)[:, :100]
    steps = scales.repeat_interleave(64, dim=1)[:, :100]
    assert ((restored - x).abs() <= 0.5001 * steps).all()
