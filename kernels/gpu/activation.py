"""Gated activations on a GPU: SiLU or GELU of one half of each row, times the other."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activation_math import ACTIVATIONS, activated
from .aot import Specialization

# 8 numbers a thread, a load of 16 bytes from each half; not yet measured.
_BLOCK = 1024
_NUM_WARPS = 4


def silu_and_mul(gate_up: Tensor) -> Tensor:
    """As kernels.silu_and_mul; [num_rows, 2 * dim], contiguous; float32, float16 or bfloat16."""
    return _activation_and_mul(gate_up, "silu")


def gelu_and_mul(gate_up: Tensor) -> Tensor:
    """As kernels.gelu_and_mul; [num_rows, 2 * dim], contiguous; float32, float16 or bfloat16."""
    return _activation_and_mul(gate_up, "gelu")


def _activation_and_mul(gate_up: Tensor, activation: str) -> Tensor:
    assert gate_up.is_contiguous()
    num_rows, dim = gate_up.shape[0], gate_up.shape[1] // 2
    out = torch.empty(num_rows, dim, dtype=gate_up.dtype, device=gate_up.device)
    _activation_and_mul_kernel[(num_rows, triton.cdiv(dim, _BLOCK))](
        gate_up_ptr=gate_up,
        out_ptr=out,
        dim=dim,
        ACTIVATION=activation,
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )
    return out


def aot_specializations() -> Iterator[Specialization]:
    for activation in ACTIVATIONS:
        for dtype in ("bf16", "fp16"):
            signature = {"gate_up_ptr": f"*{dtype}", "out_ptr": f"*{dtype}", "dim": "i32:16"}
            constexprs = {"ACTIVATION": activation, "BLOCK": _BLOCK}
            yield Specialization(_activation_and_mul_kernel, signature, constexprs, _NUM_WARPS, 3)


@triton.jit
def _activation_and_mul_kernel(
    gate_up_ptr,
    out_ptr,
    dim,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    is_inside = columns < dim
    gate_ptrs = gate_up_ptr + row * 2 * dim + columns
    gate = tl.load(gate_ptrs, mask=is_inside, other=0.0).to(tl.float32)
    up = tl.load(gate_ptrs + dim, mask=is_inside, other=0.0).to(tl.float32)
    out = activated(gate, ACTIVATION=ACTIVATION) * up
    tl.store(out_ptr + row * dim + columns, out.to(out_ptr.dtype.element_ty), mask=is_inside)
