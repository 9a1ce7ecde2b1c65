"""Gated activations and quantization of each row on a GPU, in one pass over it."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.quantize_rows import QuantizedRows

from .activation_math import ACTIVATIONS, activated
from .aot import Specialization
from .quantized_rows import launch_quantizing, quantizing_specializations
from .row_math import store_quantized, tile_of_rows


def silu_and_mul_quantize(gate_up: Tensor, dtype: torch.dtype) -> QuantizedRows:
    """As kernels.activation_quantize; [num_rows, 2 * dim], contiguous, dim up to 32768."""
    return _activation_quantize(gate_up, dtype, "silu")


def gelu_and_mul_quantize(gate_up: Tensor, dtype: torch.dtype) -> QuantizedRows:
    """As kernels.activation_quantize; [num_rows, 2 * dim], contiguous, dim up to 32768."""
    return _activation_quantize(gate_up, dtype, "gelu")


def _activation_quantize(gate_up: Tensor, dtype: torch.dtype, activation: str) -> QuantizedRows:
    assert gate_up.is_contiguous()
    num_rows, dim = gate_up.shape[0], gate_up.shape[1] // 2
    arguments = {"gate_up_ptr": gate_up, "ACTIVATION": activation}
    return launch_quantizing(
        _activation_quantize_kernel, num_rows, dim, dtype, gate_up.device, arguments
    )


def aot_specializations() -> Iterator[Specialization]:
    for activation in ACTIVATIONS:
        yield from quantizing_specializations(
            _activation_quantize_kernel, {"gate_up_ptr": "*"}, ACTIVATION=activation
        )


@triton.jit(do_not_specialize=["num_rows"])
def _activation_quantize_kernel(
    gate_up_ptr,
    values_ptr,
    scales_ptr,
    num_rows,
    dim,
    ACTIVATION: tl.constexpr,
    LARGEST: tl.constexpr,
    TYPE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows, columns, _, is_inside = tile_of_rows(num_rows, dim, ROWS=ROWS, BLOCK=BLOCK)
    gate_ptrs = gate_up_ptr + rows[:, None] * 2 * dim + columns[None, :]  # [ROWS, BLOCK]
    gate = tl.load(gate_ptrs, mask=is_inside, other=0.0).to(tl.float32)
    up = tl.load(gate_ptrs + dim, mask=is_inside, other=0.0).to(tl.float32)
    out = activated(gate, ACTIVATION=ACTIVATION) * up
    store_quantized(out, values_ptr, scales_ptr, num_rows, dim, LARGEST=LARGEST, TYPE=TYPE)
