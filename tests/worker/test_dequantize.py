"""octavo.worker.dequantize against the gguf package, bit for bit."""

import gguf
import numpy as np
import pytest
import torch

from octavo.worker.dequantize import SUPPORTED_TYPES, dequantize
from tests.worker.gguf_bytes import random_blocks

ROWS, COLUMNS = 300, 512


def stored(kind: gguf.GGMLQuantizationType) -> np.ndarray:
    if kind.name in ("Q4_K", "Q6_K"):
        return random_blocks(kind, ROWS, COLUMNS)
    weights = np.random.default_rng(0).normal(0, 2, (ROWS, COLUMNS)).astype(np.float32)
    # More blocks than one piece of work, and a block of zeros.
    weights[0, :32] = 0
    return gguf.quants.quantize(weights, kind)


@pytest.mark.parametrize("kind", SUPPORTED_TYPES, ids=lambda kind: kind.name)
def test_float32_is_ggmls_definition_bit_for_bit(kind: gguf.GGMLQuantizationType) -> None:
    quantized = stored(kind)
    expected = gguf.quants.dequantize(quantized, kind)
    raw = torch.from_numpy(quantized.view(np.uint8).reshape(-1).copy())
    weights = dequantize(raw, kind, torch.float32)
    assert weights.view(ROWS, COLUMNS).numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", SUPPORTED_TYPES, ids=lambda kind: kind.name)
def test_bfloat16_is_float32_rounded_once(kind: gguf.GGMLQuantizationType) -> None:
    quantized = stored(kind)
    expected = torch.from_numpy(gguf.quants.dequantize(quantized, kind).copy()).bfloat16()
    raw = torch.from_numpy(quantized.view(np.uint8).reshape(-1).copy())
    assert torch.equal(dequantize(raw, kind, torch.bfloat16).view(ROWS, COLUMNS), expected)
