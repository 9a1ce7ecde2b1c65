"""RMSNorm on a GPU against the formula in double precision."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from octavo.kernels.add_rms_norm import add_rms_norm_reference
from octavo.kernels.add_rms_norm_quantize import add_rms_norm_quantize_reference
from octavo.kernels.gpu.add_rms_norm import add_rms_norm
from octavo.kernels.gpu.add_rms_norm_quantize import add_rms_norm_quantize
from octavo.kernels.gpu.rms_norm import rms_norm
from octavo.kernels.gpu.rms_norm_quantize import rms_norm_quantize
from octavo.kernels.quantize_rows import QuantizedRows
from tests.kernels.closeness import assert_close
from tests.kernels.gpu.quantization import QUANTIZED, assert_quantized

EPS = 1e-5
AddRmsNorm = Callable[[Tensor, Tensor, Tensor, float], Tensor]
AddRmsNormQuantize = Callable[[Tensor, Tensor, Tensor, float, torch.dtype], QuantizedRows]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
SHAPES = pytest.mark.parametrize(
    "shape", [(1, 1), (1, 576), (3, 17), (37, 100), (65, 63), (5, 2048), (2, 2880), (2, 32768)]
)


def exact(x: Tensor, weight: Tensor) -> Tensor:
    x, weight = x.double(), weight.double()
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


@DTYPES
@SHAPES
def test_normalises_rows(device: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight = torch.randn(shape).to(device, dtype), torch.randn(shape[1]).to(device, dtype)
    assert_close(rms_norm(x, weight, EPS), exact(x, weight))


@pytest.mark.parametrize("op", [add_rms_norm, add_rms_norm_reference])
@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (37, 100), (2, 2880)])
def test_adds_and_normalises_the_sum(
    device: str, shape: tuple[int, int], dtype: torch.dtype, op: AddRmsNorm
) -> None:
    x, residual = torch.randn(2, *shape).to(device, dtype)
    weight = torch.randn(shape[1]).to(device, dtype)
    total, given = x.double() + residual.double(), x.clone()
    assert_close(op(x, residual, weight, EPS), exact(total, weight))
    assert_close(residual, total)
    assert torch.equal(x, given)


@QUANTIZED
@SHAPES
def test_normalises_and_quantizes_rows(
    device: str, shape: tuple[int, int], quantized: torch.dtype
) -> None:
    x, weight = (torch.randn(each).to(device, torch.float16) for each in (shape, shape[1]))
    values, scales = rms_norm_quantize(x, weight, EPS, quantized)
    assert values.dtype == quantized
    assert_quantized(values, scales, exact(x, weight))


@pytest.mark.parametrize("op", [add_rms_norm_quantize, add_rms_norm_quantize_reference])
@QUANTIZED
@pytest.mark.parametrize("shape", [(1, 1), (37, 100), (2, 2880)])
def test_adds_normalises_and_quantizes_the_sum(
    device: str, shape: tuple[int, int], quantized: torch.dtype, op: AddRmsNormQuantize
) -> None:
    x, residual = torch.randn(2, *shape).to(device, torch.float16)
    weight = torch.randn(shape[1]).to(device, torch.float16)
    total, given = x.double() + residual.double(), x.clone()
    values, scales = op(x, residual, weight, EPS, quantized)
    assert values.dtype == quantized
    assert_quantized(values, scales, exact(total, weight))
    assert_close(residual, total)
    assert torch.equal(x, given)


@QUANTIZED
def test_a_row_of_zeros_stays_one(device: str, quantized: torch.dtype) -> None:
    x, weight = torch.zeros(3, 100, device=device), torch.ones(100, device=device)
    values, scales = rms_norm_quantize(x, weight, EPS, quantized)
    assert not values.float().any() and (scales > 0).all()
