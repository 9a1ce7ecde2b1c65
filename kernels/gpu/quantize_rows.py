"""Quantization of each row on a GPU, each read once."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.quantize_rows import QuantizedRows

from .aot import Specialization
from .quantized_rows import launch_quantizing, quantizing_specializations
from .row_math import store_quantized, tile_of_rows


def quantize_rows(x: Tensor, dtype: torch.dtype) -> QuantizedRows:
    """Quantize the rows of `x`, as kernels.quantize_rows does.

    Args:
        x: [num_rows, dim], contiguous, dim up to 32768; float32, float16 or bfloat16.
    """
    assert x.is_contiguous()
    num_rows, dim = x.shape
    return launch_quantizing(_quantize_rows_kernel, num_rows, dim, dtype, x.device, {"x_ptr": x})


def aot_specializations() -> Iterator[Specialization]:
    yield from quantizing_specializations(_quantize_rows_kernel, {"x_ptr": "*"})


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
    _, _, offsets, is_inside = tile_of_rows(num_rows, dim, ROWS=ROWS, BLOCK=BLOCK)
    x = tl.load(x_ptr + offsets, mask=is_inside, other=0.0).to(tl.float32)
    store_quantized(x, values_ptr, scales_ptr, num_rows, dim, LARGEST=LARGEST, TYPE=TYPE)
