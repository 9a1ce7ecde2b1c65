"""Takes the blocks of a GGUF file apart into the numbers of quantized weights, every bit kept.

The types are described in dequantize.py. Q4_0 is Q4_1 with -8 scales as the minimum.
"""

from collections.abc import Mapping

import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from octavo.kernels.linear import Layout
from octavo.kernels.quantized_weight import QuantizedWeight

LAYOUTS: Mapping[GGMLQuantizationType, Layout] = {
    GGMLQuantizationType.Q8_0: Layout.Q8,
    GGMLQuantizationType.Q4_0: Layout.Q4,
    GGMLQuantizationType.Q4_1: Layout.Q4,
}


def quantized_weight(raw: Tensor, kind: GGMLQuantizationType, num_rows: int) -> QuantizedWeight:
    """Return the matrix of `raw`, uint8 [num_bytes]; `kind` is one of LAYOUTS."""
    blocks = raw.view(num_rows, -1, GGML_QUANT_SIZES[kind][1])
    scales = _half(blocks, 0)
    layout = LAYOUTS[kind]
    if layout is Layout.Q8:
        values = blocks[:, :, 2:].reshape(num_rows, -1).view(torch.int8)
        return QuantizedWeight(layout, values, scales)
    is_q4_0 = kind is GGMLQuantizationType.Q4_0
    packed = blocks[:, :, 2 if is_q4_0 else 4 :]
    values = torch.cat((packed & 15, packed >> 4), dim=2).view(num_rows, -1)
    return QuantizedWeight(layout, values, scales, scales * -8 if is_q4_0 else _half(blocks, 2))


def _half(blocks: Tensor, offset: int) -> Tensor:
    """Return the half-precision number at byte `offset` of each block, [num_rows, num_blocks]."""
    return blocks[:, :, offset : offset + 2].contiguous().view(torch.float16).squeeze(2)
