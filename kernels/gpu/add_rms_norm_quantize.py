"""Addition to the residual stream, RMSNorm and quantization on a GPU, in one pass over each row."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.quantize_rows import QuantizedRows

from .aot import Specialization
from .quantized_rows import launch_quantizing, quantizing_specializations
from .row_math import added_to_residual, rms_normalized, store_quantized, tile_of_rows


def add_rms_norm_quantize(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, dtype: torch.dtype
) -> QuantizedRows:
    """Add, normalise and quantize, as kernels.add_rms_norm_quantize does.

    Args:
        x, residual: [num_rows, dim], contiguous, dim up to 32768; float32, float16 or bfloat16.
        weight: [dim], dtype of x.
    """
    num_rows, dim = x.shape
    assert x.is_contiguous() and residual.is_contiguous() and residual.shape == x.shape, x.shape
    assert weight.is_contiguous() and weight.shape == (dim,), weight.shape
    arguments = {"x_ptr": x, "residual_ptr": residual, "weight_ptr": weight, "eps": eps}
    return launch_quantizing(
        _add_rms_norm_quantize_kernel, num_rows, dim, dtype, x.device, arguments
    )


def aot_specializations() -> Iterator[Specialization]:
    signature = dict.fromkeys(("x_ptr", "residual_ptr", "weight_ptr"), "*") | {"eps": "fp32"}
    yield from quantizing_specializations(_add_rms_norm_quantize_kernel, signature)


@triton.jit(do_not_specialize=["num_rows"])
def _add_rms_norm_quantize_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    values_ptr,
    scales_ptr,
    num_rows,
    dim,
    eps,
    LARGEST: tl.constexpr,
    TYPE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    _, columns, offsets, is_inside = tile_of_rows(num_rows, dim, ROWS=ROWS, BLOCK=BLOCK)
    total = added_to_residual(x_ptr + offsets, residual_ptr + offsets, is_inside)
    weight = tl.load(weight_ptr + columns, mask=columns < dim, other=0.0).to(tl.float32)
    out = rms_normalized(total, weight, eps, dim)
    store_quantized(out, values_ptr, scales_ptr, num_rows, dim, LARGEST=LARGEST, TYPE=TYPE)
