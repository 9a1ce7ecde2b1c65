"""RMSNorm on a GPU: a program holds a few rows whole, each read once."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization, powers_of_2
from .row_math import rms_normalized, tile_of_rows
from .rows import MAX_DIM, launch_config


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the rows of `x`, as kernels.rms_norm does.

    Args:
        x: [num_rows, dim], contiguous, dim up to 32768; float32, float16 or bfloat16.
        weight: [dim], dtype of x.
    """
    num_rows, dim = x.shape
    assert x.is_contiguous() and weight.is_contiguous() and weight.shape == (dim,), weight.shape
    out = torch.empty_like(x)
    launch = launch_config(dim)
    _rms_norm_kernel[(triton.cdiv(num_rows, launch.rows),)](
        x_ptr=x,
        weight_ptr=weight,
        out_ptr=out,
        num_rows=num_rows,
        dim=dim,
        eps=eps,
        ROWS=launch.rows,
        BLOCK=launch.block,
        num_warps=launch.num_warps,
    )
    return out


def aot_specializations() -> Iterator[Specialization]:
    for launch in map(launch_config, powers_of_2(512, MAX_DIM)):
        for dtype in ("bf16", "fp16"):
            pointers = dict.fromkeys(("x_ptr", "weight_ptr", "out_ptr"), f"*{dtype}")
            signature = pointers | {"num_rows": "i32", "dim": "i32:16", "eps": "fp32"}
            constexprs = {"ROWS": launch.rows, "BLOCK": launch.block}
            yield Specialization(_rms_norm_kernel, signature, constexprs, launch.num_warps, 3)


@triton.jit(do_not_specialize=["num_rows"])
def _rms_norm_kernel(
    x_ptr,
    weight_ptr,
    out_ptr,
    num_rows,
    dim,
    eps,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    _, columns, offsets, is_inside = tile_of_rows(num_rows, dim, ROWS=ROWS, BLOCK=BLOCK)
    x = tl.load(x_ptr + offsets, mask=is_inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=columns < dim, other=0.0).to(tl.float32)
    out = rms_normalized(x, weight, eps, dim)
    tl.store(out_ptr + offsets, out.to(out_ptr.dtype.element_ty), mask=is_inside)
