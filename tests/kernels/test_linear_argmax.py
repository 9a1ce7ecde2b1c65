"""The largest output of a linear layer: that of the outputs `linear` gives, to the bit."""

import ctypes
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from octavo.kernels.linear import PackedWeight, linear, pack_weight
from octavo.kernels.linear_argmax import LinearArgmax, argmax_reference
from octavo.kernels.quantized_linear import pack_quantized_weight
from octavo.kernels.quantized_weight import quantize_int4, quantize_int8
from octavo.kernels.threads import set_num_threads

Pack = Callable[[Tensor], PackedWeight]


def pack_bfloat16(weight: Tensor) -> PackedWeight:
    return pack_weight(weight.bfloat16(), torch.float32)


def pack_int8(weight: Tensor) -> PackedWeight:
    return pack_quantized_weight(quantize_int8(weight), torch.bfloat16, torch.float32)


def pack_int4(weight: Tensor) -> PackedWeight:
    return pack_quantized_weight(quantize_int4(weight), torch.float32)


KINDS = pytest.mark.parametrize("pack", [pack_weight, pack_bfloat16, pack_int8, pack_int4])


def random_head(out_features: int, in_features: int, pack: Pack) -> PackedWeight:
    return pack(torch.randn(out_features, in_features) / math.sqrt(in_features))


@KINDS
@pytest.mark.parametrize("num_threads", [1, 2, 7])
@pytest.mark.parametrize(("out_features", "in_features"), [(1, 2), (64, 64), (300, 576), (999, 30)])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 64, 103])
def test_is_the_argmax_of_the_outputs(
    cpu: ctypes.CDLL,
    num_rows: int,
    out_features: int,
    in_features: int,
    num_threads: int,
    pack: Pack,
) -> None:
    set_num_threads(num_threads)
    packed = random_head(out_features, in_features, pack)
    x = torch.randn(num_rows, in_features).to(packed.in_dtype)
    assert LinearArgmax(packed).of(x).tolist() == linear(x, packed).argmax(dim=1).tolist()


@KINDS
def test_what_fills_the_last_panel_is_no_output(cpu: ctypes.CDLL, pack: Pack) -> None:
    packed = pack(-torch.ones(70, 64))
    assert LinearArgmax(packed).of(torch.ones(1, 64, dtype=packed.in_dtype)).tolist() == [0]


@KINDS
def test_the_first_of_equal_outputs(cpu: ctypes.CDLL, pack: Pack) -> None:
    set_num_threads(2)
    weight = torch.randn(5, 64).clamp(max=0.5).repeat(90, 1)
    weight[37::50] = 1
    packed = pack(weight)
    x = torch.ones(9, 64, dtype=packed.in_dtype)
    assert LinearArgmax(packed).of(x).tolist() == [37] * 9


@pytest.mark.parametrize("place", [0, 40, 99])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_without_a_finite_maximum(cpu: ctypes.CDLL, value: float, place: int) -> None:
    weight = torch.ones(100, 8)
    weight[place, 3] = value
    x = torch.ones(3, 8)
    # Zero times infinity is not a number either.
    x[1, 3] = 0
    expected = 0 if place else 1
    of_finite = expected if value == -math.inf else -1
    assert LinearArgmax(pack_weight(weight)).of(x).tolist() == [of_finite, -1, of_finite]


def test_a_row_of_minus_infinity(cpu: ctypes.CDLL) -> None:
    packed = pack_weight(torch.full((100, 8), -math.inf))
    assert LinearArgmax(packed).of(torch.ones(1, 8)).tolist() == [-1]


def test_a_row_that_is_not_a_number_fails_alone(cpu: ctypes.CDLL) -> None:
    packed = random_head(200, 64, pack_bfloat16)
    x = torch.randn(4, 64).bfloat16()
    head = LinearArgmax(packed)
    alone = head.of(x).tolist()
    x[2, 5] = math.nan
    assert head.of(x).tolist() == [*alone[:2], -1, alone[3]]


def test_works_without_a_compiler(no_library: None) -> None:
    packed = random_head(70, 64, pack_bfloat16)
    x = torch.randn(3, 64).bfloat16()
    x[1] = math.nan
    expected = argmax_reference(linear(x, packed))
    assert LinearArgmax(packed).of(x).tolist() == expected.tolist()
    assert expected[1] == -1
