"""How close quantized weights are, and what is kept exactly."""

import pytest
import torch

from octavo.kernels.linear import Layout
from octavo.kernels.quantized_weight import (
    QuantizedWeight,
    quantize_int4,
    quantize_int8,
    stack_quantized,
)


def test_int8_is_within_half_a_step_of_each_output_feature() -> None:
    weight = torch.randn(70, 100) * torch.logspace(-4, 2, 70)[:, None]
    quantized = quantize_int8(weight)
    assert quantized.values.abs().amax(dim=1).eq(127).all()
    error = (quantized.dequantized() - weight).abs()
    assert (error <= 0.5001 * quantized.scales).all()


@pytest.mark.parametrize("in_features", [64, 70])
def test_int4_is_within_half_a_step_of_each_group(in_features: int) -> None:
    weight = torch.randn(30, in_features)
    quantized = quantize_int4(weight)
    assert quantized.values.shape == weight.shape and quantized.values.max() == 15
    assert quantized.scales.shape == (30, -(-in_features // 32))
    error = (quantized.dequantized() - weight).abs()
    steps = quantized.scales.float().repeat_interleave(32, dim=1)[:, :in_features]
    # Scale and minimum are themselves rounded to float16.
    assert (error <= 0.51 * steps + 2**-10 * weight.abs().amax()).all()


def test_int4_scales_may_be_denormal() -> None:
    weight = torch.randn(30, 64) * 1e-4
    quantized = quantize_int4(weight)
    assert quantized.scales.max() < torch.finfo(torch.float16).tiny
    assert (quantized.dequantized() - weight).abs().max() < 0.6 * quantized.scales.max()


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_int4])
@pytest.mark.parametrize("value", [0.0, -0.75])
def test_a_constant_weight_is_exact(quantize: object, value: float) -> None:
    assert callable(quantize)
    weight = torch.full((3, 64), value)
    torch.testing.assert_close(quantize(weight).dequantized(), weight)


def test_stacked_weights_are_what_they_were_apart() -> None:
    parts = [quantize_int4(torch.randn(rows, 96)) for rows in (3, 5)]
    whole = stack_quantized(parts)
    assert whole.layout is Layout.Q4
    assert torch.equal(whole.dequantized(), torch.cat([part.dequantized() for part in parts]))
    scales = torch.ones(2, 1, dtype=torch.float16)
    q8 = QuantizedWeight(Layout.Q8, torch.ones(2, 20, dtype=torch.int8), scales)
    assert stack_quantized([q8, q8]).dequantized().eq(torch.ones(4, 20)).all()
