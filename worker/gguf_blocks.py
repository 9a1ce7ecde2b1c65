"""Takes the blocks of a GGUF file apart into the numbers of quantized weights.

The types are described in dequantize.py. Q4_0 is Q4_1 with -8 scales as the minimum. Of these and
of Q8_0 every bit is kept; the products of scales that Q4_K has are rounded to half precision.
"""

from collections.abc import Mapping

import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from octavo.kernels.linear import Layout
from octavo.kernels.quantized_weight import QuantizedWeight

from .dequantize import q4_k_scales, split_halves

LAYOUTS: Mapping[GGMLQuantizationType, Layout] = {
    GGMLQuantizationType.Q8_0: Layout.Q8,
    GGMLQuantizationType.Q4_0: Layout.Q4,
    GGMLQuantizationType.Q4_1: Layout.Q4,
    GGMLQuantizationType.Q4_K: Layout.Q4,
}


def quantized_weight(raw: Tensor, kind: GGMLQuantizationType, num_rows: int) -> QuantizedWeight:
    """Return the matrix of `raw`, uint8 [num_bytes]; `kind` is one of LAYOUTS."""
    blocks = raw.view(-1, GGML_QUANT_SIZES[kind][1])
    minimums = None
    match kind:
        case GGMLQuantizationType.Q8_0:
            values, scales = blocks[:, 2:].contiguous().view(torch.int8), _half(blocks, 0)
        case GGMLQuantizationType.Q4_0:
            values, scales = split_halves(blocks[:, 2:]), _half(blocks, 0)
            minimums = scales * -8
        case GGMLQuantizationType.Q4_1:
            values, scales = split_halves(blocks[:, 4:]), _half(blocks, 0)
            minimums = _half(blocks, 2)
        case _:
            values = split_halves(blocks[:, 16:].reshape(-1, 4, 32))
            multiplied, taken_off = q4_k_scales(blocks)
            scales, minimums = multiplied.half(), -taken_off.half()
    return QuantizedWeight(
        LAYOUTS[kind],
        values.view(num_rows, -1),
        scales.view(num_rows, -1),
        None if minimums is None else minimums.view(num_rows, -1),
    )


def _half(blocks: Tensor, offset: int) -> Tensor:
    """Return the half-precision number at byte `offset` of each block, [num_blocks, 1]."""
    return blocks[:, offset : offset + 2].contiguous().view(torch.float16)
