"""octavo.worker.gguf_blocks: the numbers that a file has, against what they are dequantized to."""

import gguf
import numpy as np
import pytest
import torch

from octavo.worker.dequantize import dequantize
from octavo.worker.gguf_blocks import LAYOUTS, quantized_weight
from tests.worker.gguf_bytes import random_blocks

ROWS, COLUMNS = 30, 768


@pytest.mark.parametrize("kind", LAYOUTS, ids=lambda kind: kind.name)
def test_the_numbers_stand_for_what_the_file_says(kind: gguf.GGMLQuantizationType) -> None:
    if kind.name == "Q4_K":
        stored, rounding = random_blocks(kind, ROWS, COLUMNS), 2**-11
    else:
        weights = np.random.default_rng(0).normal(0, 2, (ROWS, COLUMNS)).astype(np.float32)
        stored, rounding = gguf.quants.quantize(weights, kind), 0.0
    raw = torch.from_numpy(stored.view(np.uint8).reshape(-1).copy())
    weight = quantized_weight(raw, kind, ROWS)
    assert weight.layout is LAYOUTS[kind]
    assert weight.values.shape == (ROWS, COLUMNS)
    assert weight.scales.dtype == torch.float16
    expected = dequantize(raw, kind, torch.float32).view(ROWS, COLUMNS)
    scales = weight.scales.abs().float().repeat_interleave(32, dim=1)
    largest = weight.values.float().abs() * scales
    if weight.minimums is not None:
        largest += weight.minimums.abs().float().max()
    error = (weight.dequantized() - expected).abs()
    assert (error <= (rounding + 1e-6) * largest).all()
