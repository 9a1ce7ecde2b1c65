"""Matrix products against double precision, and rows that keep their bits in every batch."""

import ctypes
import math

import pytest
import torch
from torch import Tensor

from octavo.kernels.linear import Layout, add_linear, linear, pack_weight
from octavo.kernels.threads import set_num_threads
from tests.kernels.closeness import DTYPES, assert_close

# Odd sizes; a panel is 8 to 64 features wide, and 1,024 to 8,192 inputs are taken at a time.
SHAPES = pytest.mark.parametrize(
    ("out_features", "in_features"),
    [(1, 2), (64, 64), (65, 30), (200, 576), (7, 2500), (130, 9000)],
)


def exact(x: Tensor, weight: Tensor) -> Tensor:
    return torch.matmul(x.double(), weight.double().T)


def random_weight(out_features: int, in_features: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(out_features, in_features).div(math.sqrt(in_features)).to(dtype)


@DTYPES
@SHAPES
@pytest.mark.parametrize("num_rows", [0, 1, 5, 6, 7, 64, 103])
def test_matches_the_exact_product(
    cpu: ctypes.CDLL, num_rows: int, out_features: int, in_features: int, dtype: torch.dtype
) -> None:
    x = torch.randn(num_rows, in_features).to(dtype)
    weight = random_weight(out_features, in_features, dtype)
    packed = pack_weight(weight)
    assert packed.layout is not Layout.PLAIN
    out = linear(x, packed)
    assert out.dtype == dtype
    # A sum of n terms in float32 wanders off by about √n roundings.
    assert_close(out, exact(x, weight), slack=max(1.0, math.sqrt(in_features) / 10))


def exact_gated(x: Tensor, gate_up: Tensor) -> Tensor:
    gate, up = exact(x, gate_up).chunk(2, dim=1)
    return gate / (1 + torch.exp(-gate)) * up


@DTYPES
@SHAPES
@pytest.mark.parametrize("num_rows", [0, 1, 7, 64, 103])
def test_a_gated_weight(
    cpu: ctypes.CDLL, num_rows: int, out_features: int, in_features: int, dtype: torch.dtype
) -> None:
    x = torch.randn(num_rows, in_features).to(dtype)
    weight = random_weight(2 * out_features, in_features, dtype)
    out = linear(x, pack_weight(weight, is_gated=True))
    assert out.shape == (num_rows, out_features) and out.dtype == dtype
    assert_close(out, exact_gated(x, weight), slack=max(2.0, math.sqrt(in_features) / 10))


@DTYPES
@SHAPES
@pytest.mark.parametrize("num_rows", [0, 1, 7, 64, 103])
def test_adds_to_the_residual_stream(
    cpu: ctypes.CDLL, num_rows: int, out_features: int, in_features: int, dtype: torch.dtype
) -> None:
    x = torch.randn(num_rows, in_features).to(dtype)
    residual = torch.randn(num_rows, out_features).to(dtype)
    weight = random_weight(out_features, in_features, dtype)
    expected = residual.double() + exact(x, weight)
    packed = pack_weight(weight)
    add_linear(residual, x, packed)
    # oneDNN's product is rounded before it is added.
    slack = 1.0 if packed.layout.is_native else 2.0
    assert_close(residual, expected, slack=max(slack, math.sqrt(in_features) / 10))


@DTYPES
def test_gates_and_adds_without_a_compiler(no_library: None, dtype: torch.dtype) -> None:
    x, weight = torch.randn(9, 128).to(dtype), random_weight(70, 128, dtype)
    # The gate is rounded before its activation.
    assert_close(linear(x, pack_weight(weight, is_gated=True)), exact_gated(x, weight), slack=3)
    residual = torch.randn(9, 70).to(dtype)
    expected = residual.double() + exact(x, weight)
    add_linear(residual, x, pack_weight(weight))
    assert_close(residual, expected, slack=2)


@SHAPES
def test_a_bfloat16_weight_can_answer_in_float32(
    cpu: ctypes.CDLL, out_features: int, in_features: int
) -> None:
    x = torch.randn(9, in_features).bfloat16()
    weight = random_weight(out_features, in_features, torch.bfloat16)
    packed = pack_weight(weight, out_dtype=torch.float32)
    assert packed.layout is Layout.PANELS
    out = linear(x, packed)
    assert out.dtype == torch.float32
    assert_close(out, exact(x, weight), slack=max(1.0, math.sqrt(in_features) / 10))


@pytest.mark.parametrize("out_dtype", [torch.bfloat16, torch.float32])
def test_an_odd_number_of_bfloat16_inputs(cpu: ctypes.CDLL, out_dtype: torch.dtype) -> None:
    x, weight = torch.randn(3, 33).bfloat16(), random_weight(20, 33, torch.bfloat16)
    out = linear(x, pack_weight(weight, out_dtype=out_dtype))
    assert out.dtype == out_dtype
    assert_close(out, exact(x, weight))


@pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),
    ],
)
def test_works_without_a_compiler(
    no_library: None, dtype: torch.dtype, out_dtype: torch.dtype
) -> None:
    x, weight = torch.randn(9, 128).to(dtype), random_weight(70, 128, dtype)
    packed = pack_weight(weight, out_dtype=out_dtype)
    assert packed.layout is not Layout.PANELS
    out = linear(x, packed)
    assert out.dtype == out_dtype
    assert_close(out, exact(x, weight))


@DTYPES
@pytest.mark.parametrize("is_gated", [False, True])
@pytest.mark.parametrize(("out_features", "in_features"), [(200, 576), (130, 9000)])
def test_a_row_has_the_same_bits_in_every_batch_and_with_any_number_of_threads(
    cpu: ctypes.CDLL, out_features: int, in_features: int, is_gated: bool, dtype: torch.dtype
) -> None:
    x = torch.randn(230, in_features).to(dtype)
    # Answers in float32 have panels on every machine.
    weight = random_weight(out_features, in_features, dtype)
    packed = pack_weight(weight, out_dtype=torch.float32, is_gated=is_gated)
    set_num_threads(1)
    alone = torch.cat([linear(row[None], packed) for row in x])
    for num_threads in (1, 2, 3, 7):
        set_num_threads(num_threads)
        for num_rows in (2, 3, 4, 5, 6, 7, 11, 13, 64, 97, 230):
            assert torch.equal(linear(x[:num_rows], packed), alone[:num_rows])


def test_rows_that_are_not_numbers_disturb_no_other_row(cpu: ctypes.CDLL) -> None:
    x = torch.randn(7, 64)
    packed = pack_weight(random_weight(70, 64, torch.float32))
    clean = linear(x, packed)
    x[3] = torch.nan
    out = linear(x, packed)
    assert out[3].isnan().all()
    assert torch.equal(out[[0, 1, 2, 4, 5, 6]], clean[[0, 1, 2, 4, 5, 6]])
