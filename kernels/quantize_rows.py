"""Quantization of each row to 8 bits with a scale of its own, as fp8 and int8 products take it.

    values = round(x / scale)        scale = max |x| / largest        largest = 448 or 127

Source: LLM.int8() (Dettmers et al., 2022), for its vector-wise scales.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .gpu.interpreter import interpreting

# So that a row of zeros has a scale too, smaller than any that matters.
_LEAST_ABSMAX = 1e-20


class QuantizedRows(NamedTuple):
    """Rows as what their numbers in 8 bits and the scale of each stand for.

    Attributes:
        values: [num_rows, dim], float8_e4m3fn or int8.
        scales: float32 [num_rows]; NaN for a row that is not all finite.
    """

    values: Tensor
    scales: Tensor


def quantize_rows(x: Tensor, dtype: torch.dtype) -> QuantizedRows:
    """Quantize the rows of `x`.

    Args:
        x: [num_rows, dim], contiguous; float32, float16 or bfloat16.
        dtype: float8_e4m3fn or int8.
    Returns:
        x ≈ values · scales, computed in float32, values rounded half to even.
    """
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import quantize_rows as gpu

        return gpu.quantize_rows(x, dtype)
    return quantize_rows_reference(x, dtype)


def quantize_rows_reference(x: Tensor, dtype: torch.dtype) -> QuantizedRows:
    wide, is_int = x.float(), dtype == torch.int8
    largest = float((torch.iinfo if is_int else torch.finfo)(dtype).max)
    absmax = wide.abs().amax(dim=-1).clamp_(min=_LEAST_ABSMAX)
    values = wide * (largest / absmax)[:, None]
    scales = absmax / largest + (wide * 0).sum(dim=-1)
    return QuantizedRows((values.round_() if is_int else values).to(dtype), scales)
