"""benchmarks.peers.w8a8: int8 weights are the float ones, rounded."""

import torch

from benchmarks.peers.w8a8 import quantize_linears


def test_linear_weights_round_by_channel_and_the_rest_stays() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    norm = torch.ones(7)
    name = "model.layers.0.mlp.up_proj.weight"
    quantized = quantize_linears({name: weight, "model.norm.weight": norm})
    assert quantized["model.norm.weight"] is norm
    assert quantized[name].dtype == torch.int8
    scale = quantized[f"{name}_scale"].double()
    assert scale.shape == (5, 1)
    # Half a step of rounding, and what bfloat16 leaves of the scale.
    error = (quantized[name].double() * scale - weight.double()).abs()
    assert bool((error <= scale / 2 + weight.double().abs() * 2**-8 + 1e-12).all())
