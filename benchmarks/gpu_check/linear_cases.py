"""The products with quantized weights, and what adapters add, on the shapes of a model."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from octavo.kernels.gpu.lora import add_lora
from octavo.kernels.gpu.scaled_linear import scaled_linear
from octavo.kernels.gpu.tiles import MAX_SPLIT_TILES
from octavo.kernels.gpu.w4a16_linear import w4a16_linear
from octavo.kernels.int4_weight import Int4Weight, pack_int4_weight
from octavo.kernels.lora import LoraWeights, add_lora_reference
from octavo.kernels.lora_batch import LoraBatch
from octavo.kernels.quantize_rows import quantize_rows
from octavo.kernels.scaled_linear import SCALE_BLOCK_SIZE, ScaledWeight, scaled_linear_reference
from octavo.kernels.w4a16_linear import w4a16_linear_reference

from .kernel_case import Cost, Inputs, KernelCase, all_bytes
from .models import ModelShape

_GROUP_SIZE = 128
_NUM_ADAPTERS, _RANK = 8, 16


def quantized_linear_cases(model: ModelShape, num_tokens: int) -> Iterator[KernelCase]:
    """Yield the products of gate and up, which are most of a layer's."""
    in_features, out_features = model.hidden_size, 2 * model.intermediate_size
    yield w4a16_case(num_tokens, in_features, out_features)
    for dtype in (torch.float8_e4m3fn, torch.int8):
        yield scaled_case(num_tokens, in_features, out_features, dtype)
    yield block_scaled_case(num_tokens, in_features, out_features)


def w4a16_case(num_tokens: int, in_features: int, out_features: int) -> KernelCase:
    def make(device: str, dtype: torch.dtype) -> Inputs:
        shape = (-(-in_features // _GROUP_SIZE), out_features)
        values = torch.randint(16, (out_features, in_features), device=device, dtype=torch.uint8)
        scales = torch.rand(shape, device=device) / math.sqrt(in_features)
        zero_points = torch.randint(16, shape, device=device)
        weight = pack_int4_weight(values, scales, zero_points, _GROUP_SIZE)
        x = torch.randn(num_tokens, in_features, device=device, dtype=dtype)
        return [x, weight.words, weight.scales_and_zeros]

    def weight_of(words: Tensor, scales_and_zeros: Tensor) -> Int4Weight:
        return Int4Weight(words, scales_and_zeros, _GROUP_SIZE, in_features)

    def bind(x: Tensor, *weight: Tensor) -> Callable[[], Tensor]:
        arrivals = _arrivals(x.device)
        return lambda: w4a16_linear(x, weight_of(*weight), arrivals=arrivals)

    return KernelCase(
        "w4a16_linear",
        f"{num_tokens} x {in_features} to {out_features}",
        make,
        bind,
        lambda x, *weight: w4a16_linear_reference(x, weight_of(*weight)),
        lambda inputs: _cost(inputs, num_tokens, in_features, out_features),
    )


def scaled_case(
    num_tokens: int, in_features: int, out_features: int, quantized: torch.dtype
) -> KernelCase:
    """A scale for each token and each output."""

    def make(device: str, dtype: torch.dtype) -> Inputs:
        x = torch.randn(num_tokens, in_features, device=device)
        weight = torch.randn(out_features, in_features, device=device) / math.sqrt(in_features)
        return [*quantize_rows(x, quantized), *quantize_rows(weight, quantized)]

    return _scaled_case(
        str(quantized).removeprefix("torch."), make, num_tokens, in_features, out_features
    )


def block_scaled_case(num_tokens: int, in_features: int, out_features: int) -> KernelCase:
    """A scale for each block of 128 numbers, and of 128 times 128 weights."""
    num_blocks, num_out_blocks = (
        -(-size // SCALE_BLOCK_SIZE) for size in (in_features, out_features)
    )

    def make(device: str, dtype: torch.dtype) -> Inputs:
        x = torch.randn(num_tokens, in_features, device=device)
        weight = torch.randn(out_features, in_features, device=device)
        return [
            x.to(torch.float8_e4m3fn),
            torch.rand(num_blocks, num_tokens, device=device),
            weight.to(torch.float8_e4m3fn),
            torch.rand(num_out_blocks, num_blocks, device=device) / math.sqrt(in_features),
        ]

    return _scaled_case("fp8 in blocks", make, num_tokens, in_features, out_features)


def lora_case(model: ModelShape, num_tokens: int) -> KernelCase:
    """Every adapter has its tokens; q, k and v are slices of one layer."""
    sizes = [heads * model.head_dim for heads in (model.num_heads, *[model.num_kv_heads] * 2)]

    def make(device: str, dtype: torch.dtype) -> Inputs:
        hidden, out_features = model.hidden_size, sum(sizes)
        down_shape = (_NUM_ADAPTERS, len(sizes), _RANK, hidden)
        return [
            torch.randn(num_tokens, out_features, device=device, dtype=dtype),
            torch.randn(num_tokens, hidden, device=device, dtype=dtype),
            (torch.randn(down_shape, device=device) / math.sqrt(hidden)).to(dtype),
            torch.randn(_NUM_ADAPTERS, out_features, _RANK, device=device, dtype=dtype),
            torch.rand(_NUM_ADAPTERS, device=device),
            torch.arange(num_tokens, device=device, dtype=torch.int32) % _NUM_ADAPTERS,
        ]

    def arguments(*inputs: Tensor) -> tuple[Tensor, Tensor, LoraWeights, LoraBatch]:
        out, x, down, up, scales, adapter_ids = inputs
        starts = torch.tensor([0, *sizes], device=x.device).cumsum(0).int()
        weights = LoraWeights(down, up, scales, tuple(sizes), starts)
        return out, x, weights, LoraBatch.of(adapter_ids, _NUM_ADAPTERS)

    def bind(*inputs: Tensor) -> Callable[[], Tensor]:
        out, x, weights, batch = arguments(*inputs)
        arrivals = _arrivals(x.device)

        def run() -> Tensor:
            add_lora(out, x, weights, batch, arrivals)
            return out

        return run

    def reference(*inputs: Tensor) -> Tensor:
        out, x, weights, batch = arguments(*inputs)
        add_lora_reference(out, x, weights, batch)
        return out

    def cost(inputs: Inputs) -> Cost:
        # What is added to is read and written.
        flops = 2 * num_tokens * _RANK * (len(sizes) * model.hidden_size + sum(sizes))
        return Cost(all_bytes(inputs, inputs[0]).num_bytes, flops)

    shape = f"{num_tokens} x {model.hidden_size}, {_NUM_ADAPTERS} adapters of rank {_RANK}"
    return KernelCase("lora", shape, make, bind, reference, cost)


def _scaled_case(
    kind: str,
    make: Callable[[str, torch.dtype], Inputs],
    num_tokens: int,
    in_features: int,
    out_features: int,
) -> KernelCase:
    def bind(x: Tensor, x_scales: Tensor, *weight: Tensor) -> Callable[[], Tensor]:
        arrivals, scaled = _arrivals(x.device), ScaledWeight(*weight)
        return lambda: scaled_linear(x, x_scales, scaled, torch.bfloat16, arrivals=arrivals)

    def reference(x: Tensor, x_scales: Tensor, *weight: Tensor) -> Tensor:
        return scaled_linear_reference(x, x_scales, ScaledWeight(*weight), torch.float32)

    return KernelCase(
        f"scaled_linear of {kind}",
        f"{num_tokens} x {in_features} to {out_features}",
        make,
        bind,
        reference,
        lambda inputs: _cost(inputs, num_tokens, in_features, out_features),
    )


def _cost(inputs: Inputs, num_tokens: int, in_features: int, out_features: int) -> Cost:
    written = num_tokens * out_features * torch.bfloat16.itemsize
    return Cost(all_bytes(inputs).num_bytes + written, 2 * num_tokens * in_features * out_features)


def _arrivals(device: torch.device) -> Tensor:
    return torch.zeros(MAX_SPLIT_TILES, dtype=torch.int32, device=device)
