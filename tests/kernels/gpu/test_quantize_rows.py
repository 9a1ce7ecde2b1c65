"""Quantization of rows on a GPU against exact division, and the reference with it."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from octavo.kernels.gpu.quantize_rows import quantize_rows
from octavo.kernels.quantize_rows import quantize_rows_reference
from tests.kernels.gpu.quantization import QUANTIZED, assert_quantized

Quantize = Callable[[Tensor, torch.dtype], tuple[Tensor, Tensor]]
BOTH = pytest.mark.parametrize("quantize", [quantize_rows, quantize_rows_reference])


@BOTH
@QUANTIZED
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (37, 100), (5, 2880), (2, 32768)])
def test_quantizes_rows(
    device: str,
    quantize: Quantize,
    shape: tuple[int, int],
    dtype: torch.dtype,
    quantized: torch.dtype,
) -> None:
    x = torch.randn(shape).to(device, dtype)
    values, scales = quantize(x, quantized)
    assert values.dtype == quantized and values.shape == shape
    assert_quantized(values, scales, x.double())


@BOTH
def test_halves_are_rounded_to_even(device: str, quantize: Quantize) -> None:
    x = torch.tensor([[127, 0.5, 1.5, 2.5, -0.5, -1.5, 3.4999]], device=device)
    values, scales = quantize(x, torch.int8)
    assert values.tolist() == [[127, 0, 2, 2, 0, -2, 3]] and scales.tolist() == [1.0]


@BOTH
@QUANTIZED
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_row_that_is_not_all_finite_says_so(
    device: str, quantize: Quantize, quantized: torch.dtype
) -> None:
    x = torch.ones(4, 100, device=device)
    x[0, 7], x[1, 50], x[2, 99] = math.nan, math.inf, -math.inf
    _, scales = quantize(x, quantized)
    assert scales.isnan().tolist() == [True, True, True, False]


@BOTH
@QUANTIZED
def test_a_row_of_zeros_stays_one(device: str, quantize: Quantize, quantized: torch.dtype) -> None:
    values, scales = quantize(torch.zeros(3, 100, device=device), quantized)
    assert not values.float().any() and (scales > 0).all()
