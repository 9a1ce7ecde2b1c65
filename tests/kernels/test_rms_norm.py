"""RMSNorm against the formula in double precision."""

import ctypes
import math

import pytest
import torch
from torch import Tensor

from octavo.kernels.rms_norm import rms_norm
from octavo.kernels.threads import set_num_threads
from tests.kernels.closeness import DTYPES, assert_close

EPS = 1e-5
SHAPES = pytest.mark.parametrize(
    "shape", [(1, 1), (1, 576), (3, 17), (7, 100), (65, 63), (5, 2048)]
)


def exact(x: Tensor, weight: Tensor) -> Tensor:
    x, weight = x.double(), weight.double()
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


@DTYPES
@SHAPES
def test_normalises_rows(cpu: ctypes.CDLL, shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, weight = torch.randn(shape).to(dtype), torch.randn(shape[1]).to(dtype)
    assert_close(rms_norm(x, weight, EPS), exact(x, weight))


@DTYPES
def test_works_without_a_compiler(no_library: None, dtype: torch.dtype) -> None:
    x, weight = torch.randn(4, 33).to(dtype), torch.randn(33).to(dtype)
    assert_close(rms_norm(x, weight, EPS), exact(x, weight))


@DTYPES
def test_a_row_has_the_same_bits_alone_and_with_any_number_of_threads(
    cpu: ctypes.CDLL, dtype: torch.dtype
) -> None:
    x, weight = torch.randn(300, 579).to(dtype), torch.randn(579).to(dtype)
    set_num_threads(1)
    alone = torch.cat([rms_norm(row[None], weight, EPS) for row in x])
    for num_threads in (1, 2, 3):
        set_num_threads(num_threads)
        assert torch.equal(rms_norm(x, weight, EPS), alone)


@DTYPES
def test_nan_stays_in_its_row(cpu: ctypes.CDLL, dtype: torch.dtype) -> None:
    x, weight = torch.randn(3, 40).to(dtype), torch.ones(40).to(dtype)
    x[1, 39] = math.nan
    out = rms_norm(x, weight, EPS)
    assert out.isnan().any(dim=1).tolist() == [False, True, False]
    assert out[1].isnan().all()


def test_an_empty_batch_is_fine(cpu: ctypes.CDLL) -> None:
    assert rms_norm(torch.ones(0, 8), torch.ones(8), EPS).shape == (0, 8)
