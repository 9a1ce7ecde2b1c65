"""The gated activation against the formula in double precision."""

import ctypes
import math

import pytest
import torch
from torch import Tensor

from octavo.kernels.silu_and_mul import silu_and_mul
from octavo.kernels.threads import set_num_threads
from tests.kernels.closeness import DTYPES, assert_close


def exact(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.double().chunk(2, dim=-1)
    return gate / (1 + torch.exp(-gate)) * up


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (1, 1536), (3, 17), (65, 100), (300, 63)])
def test_matches_the_formula(cpu: ctypes.CDLL, shape: tuple[int, int], dtype: torch.dtype) -> None:
    gate_up = (4 * torch.randn(shape[0], 2 * shape[1])).to(dtype)
    assert_close(silu_and_mul(gate_up), exact(gate_up))


@DTYPES
def test_works_without_a_compiler(no_library: None, dtype: torch.dtype) -> None:
    gate_up = torch.randn(5, 34).to(dtype)
    assert_close(silu_and_mul(gate_up), exact(gate_up))


@DTYPES
def test_large_gates_saturate(cpu: ctypes.CDLL, dtype: torch.dtype) -> None:
    gates = torch.tensor([-1e38, -200.0, -88.5, -87.0, 0.0, 87.0, 88.5, 200.0, 1e38]).to(dtype)
    out = silu_and_mul(torch.cat([gates, torch.ones(9, dtype=dtype)])[None])[0]
    assert torch.allclose(out, gates.clamp(min=0), rtol=0, atol=1e-30)


def test_nan_stays_in_its_place(cpu: ctypes.CDLL) -> None:
    gate_up = torch.ones(1, 40)
    gate_up[0, 3] = math.nan
    assert silu_and_mul(gate_up)[0].isnan().nonzero().flatten().tolist() == [3]


@DTYPES
def test_a_row_has_the_same_bits_alone_and_with_any_number_of_threads(
    cpu: ctypes.CDLL, dtype: torch.dtype
) -> None:
    gate_up = torch.randn(100, 1001 * 2).to(dtype)
    set_num_threads(1)
    alone = torch.cat([silu_and_mul(row[None]) for row in gate_up])
    for num_threads in (1, 2, 3):
        set_num_threads(num_threads)
        assert torch.equal(silu_and_mul(gate_up), alone)
