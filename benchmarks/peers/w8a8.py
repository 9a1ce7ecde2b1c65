"""Plain W8A8 in compressed-tensors' int-quantized form, which vLLM runs on CPUs.

One scale for each output channel of the weights; activations are quantized token by token.
"""

from typing import Any

import torch
from torch import Tensor

_LINEAR_SUFFIX = "_proj.weight"
_INT8_MAX = 127

COMPRESSED_TENSORS: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
            "input_activations": {
                "num_bits": 8,
                "type": "int",
                "symmetric": True,
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}


def quantize_linears(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the checkpoint with linear weights as int8 [out, in] and their scales [out, 1]."""
    quantized = {}
    for name, tensor in tensors.items():
        if not name.endswith(_LINEAR_SUFFIX):
            quantized[name] = tensor
            continue
        weight = tensor.float()
        scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _INT8_MAX
        quantized[name] = (weight / scale).round().to(torch.int8)
        quantized[f"{name}_scale"] = scale.to(torch.bfloat16)
    return quantized
