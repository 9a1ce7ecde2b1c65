"""Quantization of each row on a GPU: a program holds a few rows whole, each read once."""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization, powers_of_2
from .row_math import QUANTIZED_TYPES, quantized
from .rows import MAX_DIM, launch_config


def quantize_rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Quantize the rows of `x`, as kernels.quantize_rows does.

    Args:
        x: [num_rows, dim], contiguous, dim up to 32768; float32, float16 or bfloat16.
    """
    assert x.is_contiguous()
    num_rows, dim = x.shape
    values = torch.empty(x.shape, dtype=dtype, device=x.device)
    scales = torch.empty(num_rows, dtype=torch.float32, device=x.device)
    launch = launch_config(dim)
    kind = QUANTIZED_TYPES[dtype]
    _quantize_rows_kernel[(triton.cdiv(num_rows, launch.rows),)](
        x_ptr=x,
        values_ptr=values,
        scales_ptr=scales,
        num_rows=num_rows,
        dim=dim,
        LARGEST=kind.largest,
        TYPE=kind.triton,
        ROWS=launch.rows,
        BLOCK=launch.block,
        num_warps=launch.num_warps,
    )
    return values, scales


def aot_specializations() -> Iterator[Specialization]:
    launches = map(launch_config, powers_of_2(512, MAX_DIM))
    for launch, kind, dtype in product(launches, QUANTIZED_TYPES.values(), ("bf16", "fp16")):
        signature = {
            "x_ptr": f"*{dtype}",
            "values_ptr": f"*{kind.name}",
            "scales_ptr": "*fp32",
            "num_rows": "i32",
            "dim": "i32:16",
        }
        constexprs = {
            "LARGEST": kind.largest,
            "TYPE": kind.triton,
            "ROWS": launch.rows,
            "BLOCK": launch.block,
        }
        yield Specialization(_quantize_rows_kernel, signature, constexprs, launch.num_warps, 3)


@triton.jit(do_not_specialize=["num_rows"])
def _quantize_rows_kernel(
    x_ptr,
    values_ptr,
    scales_ptr,
    num_rows,
    dim,
    LARGEST: tl.constexpr,
    TYPE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    columns = tl.arange(0, BLOCK)  # [BLOCK]
    offsets = rows[:, None] * dim + columns[None, :]  # [ROWS, BLOCK]
    is_inside = (rows < num_rows)[:, None] & (columns < dim)[None, :]
    x = tl.load(x_ptr + offsets, mask=is_inside, other=0.0).to(tl.float32)
    values, scales = quantized(x, LARGEST=LARGEST, TYPE=TYPE)
    tl.store(values_ptr + offsets, values, mask=is_inside)
    tl.store(scales_ptr + rows, scales, mask=rows < num_rows)
