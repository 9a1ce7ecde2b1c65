"""Gated activations and quantization of each row on a GPU, in one pass over it."""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activation_math import ACTIVATIONS, activated
from .aot import Specialization, powers_of_2
from .row_math import QUANTIZED_TYPES, quantized
from .rows import MAX_DIM, launch_config


def silu_and_mul_quantize(gate_up: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As kernels.activation_quantize; [num_rows, 2 * dim], contiguous, dim up to 32768."""
    return _activation_quantize(gate_up, dtype, "silu")


def gelu_and_mul_quantize(gate_up: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As kernels.activation_quantize; [num_rows, 2 * dim], contiguous, dim up to 32768."""
    return _activation_quantize(gate_up, dtype, "gelu")


def _activation_quantize(
    gate_up: Tensor, dtype: torch.dtype, activation: str
) -> tuple[Tensor, Tensor]:
    assert gate_up.is_contiguous()
    num_rows, dim = gate_up.shape[0], gate_up.shape[1] // 2
    values = torch.empty(num_rows, dim, dtype=dtype, device=gate_up.device)
    scales = torch.empty(num_rows, dtype=torch.float32, device=gate_up.device)
    launch = launch_config(dim)
    kind = QUANTIZED_TYPES[dtype]
    _activation_quantize_kernel[(triton.cdiv(num_rows, launch.rows),)](
        gate_up_ptr=gate_up,
        values_ptr=values,
        scales_ptr=scales,
        num_rows=num_rows,
        dim=dim,
        ACTIVATION=activation,
        LARGEST=kind.largest,
        TYPE=kind.triton,
        ROWS=launch.rows,
        BLOCK=launch.block,
        num_warps=launch.num_warps,
    )
    return values, scales


def aot_specializations() -> Iterator[Specialization]:
    launches = map(launch_config, powers_of_2(512, MAX_DIM))
    for launch, activation, kind, dtype in product(
        launches, ACTIVATIONS, QUANTIZED_TYPES.values(), ("bf16", "fp16")
    ):
        signature = {
            "gate_up_ptr": f"*{dtype}",
            "values_ptr": f"*{kind.name}",
            "scales_ptr": "*fp32",
            "num_rows": "i32",
            "dim": "i32:16",
        }
        constexprs = {
            "ACTIVATION": activation,
            "LARGEST": kind.largest,
            "TYPE": kind.triton,
            "ROWS": launch.rows,
            "BLOCK": launch.block,
        }
        yield Specialization(
            _activation_quantize_kernel, signature, constexprs, launch.num_warps, 3
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
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    columns = tl.arange(0, BLOCK)  # [BLOCK]
    is_inside = (rows < num_rows)[:, None] & (columns < dim)[None, :]
    gate_ptrs = gate_up_ptr + rows[:, None] * 2 * dim + columns[None, :]  # [ROWS, BLOCK]
    gate = tl.load(gate_ptrs, mask=is_inside, other=0.0).to(tl.float32)
    up = tl.load(gate_ptrs + dim, mask=is_inside, other=0.0).to(tl.float32)
    out = activated(gate, ACTIVATION=ACTIVATION) * up
    values, scales = quantized(out, LARGEST=LARGEST, TYPE=TYPE)
    value_ptrs = values_ptr + rows[:, None] * dim + columns[None, :]
    tl.store(value_ptrs, values, mask=is_inside)
    tl.store(scales_ptr + rows, scales, mask=rows < num_rows)
