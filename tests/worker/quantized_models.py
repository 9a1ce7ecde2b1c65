"""Tiny models whose linear layers are quantized, as plain PyTorch computes them."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

_LARGEST = {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}


def with_linear_layers(
    model: LlamaForCausalLM,
    weight: Callable[[Tensor], Tensor],
    activations: Callable[[Tensor], Tensor] | None = None,
) -> LlamaForCausalLM:
    """Return a copy in whose layers all matrices, and maybe what they multiply, are made anew."""
    changed = copy.deepcopy(model)
    for module in changed.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = weight(module.weight.data)
            if activations is not None:
                module.register_forward_pre_hook(lambda _, inputs: (activations(inputs[0]),))
    return changed


def rounded(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what numbers of 8 bits, and a scale for each row of them, are for `rows`."""
    scales = rows.abs().amax(dim=-1, keepdim=True) / _LARGEST[dtype]
    numbers = rows / scales
    return (numbers.round() if dtype == torch.int8 else numbers.to(dtype).to(rows.dtype)) * scales


def in_8_bits(model: LlamaForCausalLM, dtype: torch.dtype) -> LlamaForCausalLM:
    """Return a copy with one scale for each output of a matrix, and for each token."""

    def as_8_bits(rows: Tensor) -> Tensor:
        return rounded(rows, dtype)

    return with_linear_layers(model, as_8_bits, as_8_bits)
