"""What products are tuned on: the layers of a model with quantized weights, and experts."""

from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu_check.expert_cases import moe_case
from benchmarks.gpu_check.linear_cases import block_scaled_case, scaled_case, w4a16_case
from benchmarks.gpu_check.models import LLAMA_8B, ModelShape
from octavo.kernels.gpu import grouped_linear, scaled_linear, w4a16_linear
from octavo.kernels.gpu.grouped_linear import GroupedShape
from octavo.kernels.gpu.scaled_linear import ScaledShape
from octavo.kernels.gpu.w4a16_linear import Int4Shape

from .subject import Subject, around

_NUM_TOKENS = (16, 64, 32, 128, 256, 512, 1024, 2048, 4096, 8192)
# An expert gets a sixteenth of them.
_NUM_EXPERT_TOKENS = (64, 512, 1024, 2048, 4096, 8192)
# Hidden size, width of an expert, experts, experts of a token: of Qwen3-30B-A3B.
_EXPERTS = (2048, 768, 128, 8)


def product_subjects() -> Iterator[Subject[Any, Any]]:
    """Yield what a step has most of first: decoding, gate and up."""
    for num_tokens in _NUM_TOKENS:
        for in_features, out_features in layer_features(LLAMA_8B):
            yield scaled_subject(num_tokens, in_features, out_features, torch.float8_e4m3fn)
            yield w4a16_subject(num_tokens, in_features, out_features)
            yield block_scaled_subject(num_tokens, in_features, out_features)
            yield scaled_subject(num_tokens, in_features, out_features, torch.int8)
    for num_tokens in _NUM_EXPERT_TOKENS:
        yield expert_subject(num_tokens, *_EXPERTS)


def layer_features(model: ModelShape) -> list[tuple[int, int]]:
    """Return inputs and outputs of a layer's products, the largest first."""
    hidden, intermediate = model.hidden_size, model.intermediate_size
    heads = model.num_heads * model.head_dim
    kv_heads = model.num_kv_heads * model.head_dim
    return [
        (hidden, 2 * intermediate),
        (intermediate, hidden),
        (hidden, heads + 2 * kv_heads),
        (heads, hidden),
    ]


def scaled_subject(
    num_tokens: int, in_features: int, out_features: int, quantized: torch.dtype
) -> Subject[Any, Any]:
    shape = ScaledShape.of(quantized, num_tokens, out_features, in_features)
    case = scaled_case(num_tokens, in_features, out_features, quantized)
    choices = {
        "block_m": around(shape.num_tokens),
        "block_n": (64, 128, 256),
        "block_k": (64, 128, 256),
        "num_warps": (4, 8),
        "num_stages": (3, 4, 5),
    }
    return Subject(scaled_linear.LAUNCHES, shape, [case], choices)


def block_scaled_subject(num_tokens: int, in_features: int, out_features: int) -> Subject[Any, Any]:
    shape = ScaledShape.of(torch.float8_e4m3fn, num_tokens, out_features, in_features)
    case = block_scaled_case(num_tokens, in_features, out_features)
    choices = {
        "block_m": around(shape.num_tokens),
        "block_n": (64, 128),
        "num_warps": (4, 8),
        "num_stages": (3, 4, 5),
    }
    return Subject(scaled_linear.BLOCK_LAUNCHES, shape, [case], choices)


def w4a16_subject(num_tokens: int, in_features: int, out_features: int) -> Subject[Any, Any]:
    shape = Int4Shape.of(128, num_tokens, out_features, in_features)
    case = w4a16_case(num_tokens, in_features, out_features)
    choices = {
        "block_m": around(shape.num_tokens, most=128),
        "block_n": (64, 128, 256),
        "num_warps": (4, 8),
        "num_stages": (2, 3, 4, 5),
    }
    return Subject(w4a16_linear.LAUNCHES, shape, [case], choices)


def expert_subject(
    num_tokens: int, hidden_size: int, dim: int, num_experts: int, top_k: int
) -> Subject[Any, Any]:
    num_pairs = num_tokens * top_k
    shape = GroupedShape.of(torch.bfloat16.itemsize, num_pairs, num_experts, hidden_size, dim)
    case = moe_case(num_tokens, hidden_size, dim, num_experts, top_k)
    choices = {
        "block_m": around(shape.tokens_of_each, most=128),
        "block_n": (64, 128),
        "block_k": (32, 64, 128),
        "num_warps": (4, 8),
        "num_stages": (2, 3, 4, 5),
    }
    return Subject(grouped_linear.LAUNCHES, shape, [case], choices)
