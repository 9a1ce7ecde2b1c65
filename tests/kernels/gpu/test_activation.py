"""Gated activations on a GPU against their formulas in double precision."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from octavo.kernels.gpu.activation import gelu_and_mul, silu_and_mul
from octavo.kernels.gpu.activation_quantize import gelu_and_mul_quantize, silu_and_mul_quantize
from tests.kernels.closeness import assert_close
from tests.kernels.gpu.quantization import QUANTIZED, assert_quantized

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
SHAPES = pytest.mark.parametrize("shape", [(1, 2), (37, 34), (5, 200), (3, 5760), (2, 28672)])

Activation = Callable[[Tensor], Tensor]


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def exact(gate_up: Tensor, activation: Activation) -> Tensor:
    gate, up = gate_up.double().chunk(2, dim=1)
    return activation(gate) * up


@DTYPES
@SHAPES
@pytest.mark.parametrize(("op", "activation"), [(silu_and_mul, silu), (gelu_and_mul, gelu)])
def test_activates_and_multiplies(
    device: str, op: Activation, activation: Activation, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    gate_up = (3 * torch.randn(shape)).to(device, dtype)
    assert_close(op(gate_up), exact(gate_up, activation), slack=2)


@QUANTIZED
@SHAPES
@pytest.mark.parametrize(
    ("op", "activation"), [(silu_and_mul_quantize, silu), (gelu_and_mul_quantize, gelu)]
)
def test_activates_multiplies_and_quantizes(
    device: str,
    op: Callable[[Tensor, torch.dtype], tuple[Tensor, Tensor]],
    activation: Activation,
    shape: tuple[int, int],
    quantized: torch.dtype,
) -> None:
    gate_up = (3 * torch.randn(shape)).to(device, torch.float16)
    values, scales = op(gate_up, quantized)
    assert values.dtype == quantized
    assert_quantized(values, scales, exact(gate_up, activation))


def test_numbers_far_from_zero_neither_overflow_nor_vanish(device: str) -> None:
    gate = torch.tensor([-1e4, -100.0, 100.0, 1e4], device=device)
    gate_up = torch.cat([gate, torch.ones_like(gate)])[None]
    expected = torch.tensor([[0.0, 0.0, 100.0, 1e4]], device=device)
    torch.testing.assert_close(silu_and_mul(gate_up), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gelu_and_mul(gate_up), expected, rtol=1e-6, atol=1e-6)
