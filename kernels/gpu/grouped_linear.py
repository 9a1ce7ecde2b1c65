"""Linear layers of experts: each tile of tokens is multiplied by the weight of its own expert.

The weight is the left factor: Hopper multiplies 64 rows of it at least, where the tokens on the
right may be 16, and an expert has few of them while a model writes. The grid is as large as the
tiles could be many, so the host need not know how many tokens an expert has; what is left over
ends at once. Programs that are neighbours share their tokens, and then the weight of their expert.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .activation_math import ACTIVATIONS, activated
from .aot import Specialization
from .architecture import Architecture, TensorCores
from .expert_order import ExpertOrder
from .launches import Launches, rounded_up, rounded_up_tokens


class GroupedShape(NamedTuple):
    """What a launch depends on, sizes rounded up.

    Attributes:
        itemsize: bytes of a weight.
        tokens_of_each: of each expert, if all have as many.
        dim: width of an expert.
    """

    itemsize: int
    tokens_of_each: int
    hidden_size: int
    dim: int

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(itemsize: int, num_pairs: int, num_experts: int, *features: int) -> "GroupedShape":
        tokens_of_each = rounded_up_tokens(triton.cdiv(num_pairs, num_experts))
        return GroupedShape(itemsize, tokens_of_each, *map(rounded_up, features))


class GroupedLaunch(NamedTuple):
    """Tokens, outputs and inputs of a tile; with a gate, as many of its outputs as of up."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


def _reasoned(shape: GroupedShape, architecture: Architecture) -> GroupedLaunch:
    """Chosen by reasoning, not yet measured.

    With few tokens for each expert reading the weights is what takes time: 16 to 64 columns waste
    little, and two or three steps of 36 to 48 KiB are under way in each processor. With many a tile
    is as large as its two sums fit the registers of eight warps, 128 of each thread; 64 where a
    warp multiplies alone, from its registers.
    """
    itemsize, tokens_of_each, *_ = shape
    if tokens_of_each > 64:
        block_n = 64 if architecture.tensor_cores is TensorCores.WARP else 128
        return GroupedLaunch(128, block_n, 128 // itemsize, 8, 3)
    num_stages = 4 if tokens_of_each <= 32 and architecture.shared_kib >= 120 else 3
    return GroupedLaunch(tokens_of_each, 64, 256 // itemsize, 4, num_stages)


LAUNCHES = Launches("grouped_linear", GroupedShape, GroupedLaunch, _reasoned)


class Scaled(NamedTuple):
    """Numbers of 8 bits and the scale of each of their rows, float32; or others, and None."""

    values: Tensor
    scales: Tensor | None


def gated_linear(
    x: Scaled,
    gate_up: Scaled,
    order: ExpertOrder,
    activation: str,
    launch: GroupedLaunch,
    dtype: torch.dtype,
) -> Tensor:
    """Compute activation(gate · x) · up · x for each pair.

    Args:
        x: [num_tokens, in_features], contiguous.
        gate_up: [num_experts, 2 * out_features, in_features], contiguous, dtype of x.
    Returns:
        [num_pairs, out_features] of `dtype`, in the order of `order.pairs`; rows of pairs without
        an expert are not written.
    """
    num_tokens, in_features = x.values.shape
    out_features = gate_up.values.shape[1] // 2
    out = torch.empty(len(order.pairs), out_features, dtype=dtype, device=x.values.device)
    _gated_kernel[len(order.tiles) * triton.cdiv(out_features, launch.block_n),](
        x_ptr=x.values,
        x_scales_ptr=x.scales,
        weight_ptr=gate_up.values,
        weight_scales_ptr=gate_up.scales,
        out_ptr=out,
        pairs_ptr=order.pairs,
        tiles_ptr=order.tiles,
        top_k=len(order.pairs) // num_tokens,
        in_features=in_features,
        out_features=out_features,
        ACTIVATION=activation,
        **_constants(launch, gate_up.scales is not None),
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    return out


def down_linear(
    hidden: Scaled, down: Scaled, order: ExpertOrder, launch: GroupedLaunch, dtype: torch.dtype
) -> Tensor:
    """Compute down · hidden for each pair.

    Args:
        hidden: [num_pairs, in_features], contiguous, in the order of `order.pairs`.
        down: [num_experts, out_features, in_features], contiguous, dtype of hidden.
    Returns:
        [num_pairs, out_features] of `dtype`, in the order of the pairs; rows of pairs without an
        expert are not written.
    """
    in_features, out_features = hidden.values.shape[1], down.values.shape[1]
    out = torch.empty(len(order.pairs), out_features, dtype=dtype, device=hidden.values.device)
    _down_kernel[len(order.tiles) * triton.cdiv(out_features, launch.block_n),](
        hidden_ptr=hidden.values,
        hidden_scales_ptr=hidden.scales,
        weight_ptr=down.values,
        weight_scales_ptr=down.scales,
        out_ptr=out,
        pairs_ptr=order.pairs,
        tiles_ptr=order.tiles,
        in_features=in_features,
        out_features=out_features,
        **_constants(launch, down.scales is not None),
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    return out


def _constants(launch: GroupedLaunch, has_scales: bool) -> dict[str, object]:
    return {
        "HAS_SCALES": has_scales,
        "BLOCK_M": launch.block_m,
        "BLOCK_N": launch.block_n,
        "BLOCK_K": launch.block_k,
    }


def aot_specializations() -> Iterator[Specialization]:
    for kind, out_kind, itemsize in (
        ("bf16", "bf16", 2),
        ("fp16", "fp16", 2),
        ("fp8e4nv", "bf16", 1),
    ):
        common = {"weight_ptr": f"*{kind}", "weight_scales_ptr": "*fp32", "out_ptr": f"*{out_kind}"}
        common |= {"pairs_ptr": "*i32", "tiles_ptr": "*i32"}
        common |= {"in_features": "i32:16", "out_features": "i32:16"}
        gated = common | {"x_ptr": f"*{kind}", "x_scales_ptr": "*fp32", "top_k": "i32"}
        down = common | {"hidden_ptr": f"*{kind}", "hidden_scales_ptr": "*fp32"}
        for architecture, launch in _to_compile(itemsize):
            constants = _constants(launch, has_scales=itemsize == 1)
            resources = (launch.num_warps, launch.num_stages, architecture)
            yield Specialization(_down_kernel, down, constants, *resources)
            for activation in ACTIVATIONS:
                with_activation = constants | {"ACTIVATION": activation}
                yield Specialization(_gated_kernel, gated, with_activation, *resources)


def _to_compile(itemsize: int) -> list[tuple[Architecture, GroupedLaunch]]:
    shapes = [GroupedShape.of(itemsize, num, 1, 2048, 1024) for num in (16, 32, 64, 128)]
    wanted = [
        (architecture, launch)
        for architecture, shape, launch in LAUNCHES.to_compile(shapes)
        if shape.itemsize == itemsize
    ]
    return list(dict.fromkeys(wanted))


@triton.jit
def _gated_kernel(
    x_ptr,
    x_scales_ptr,
    weight_ptr,
    weight_scales_ptr,
    out_ptr,
    pairs_ptr,
    tiles_ptr,
    top_k,
    in_features,
    out_features,
    ACTIVATION: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    expert, places, is_place, outputs = _tile(tiles_ptr, out_features, BLOCK_M, BLOCK_N)
    if expert < 0:
        return
    tokens = tl.load(pairs_ptr + places, mask=is_place, other=0).to(tl.int64) // top_k
    is_output = outputs < out_features
    inputs = tl.arange(0, BLOCK_K)
    x_ptrs = x_ptr + tokens[None, :] * in_features + inputs[:, None]
    gate_rows = expert * 2 * out_features + outputs
    gate_ptrs = weight_ptr + gate_rows[:, None] * in_features + inputs[None, :]
    up_ptrs = gate_ptrs + out_features.to(tl.int64) * in_features
    gate = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    up = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for start in range(0, in_features, BLOCK_K):
        is_input = inputs < in_features - start
        is_weight = is_output[:, None] & is_input[None, :]
        x = tl.load(x_ptrs + start, mask=is_place[None, :] & is_input[:, None], other=0.0)
        gate_weight = tl.load(gate_ptrs + start, mask=is_weight, other=0.0)
        up_weight = tl.load(up_ptrs + start, mask=is_weight, other=0.0)
        gate = tl.dot(gate_weight, x, gate, input_precision="ieee")  # [BLOCK_N, BLOCK_M]
        up = tl.dot(up_weight, x, up, input_precision="ieee")
    if HAS_SCALES:
        scales_ptr = weight_scales_ptr + gate_rows
        x_scales = tl.load(x_scales_ptr + tokens, mask=is_place, other=0.0)[None, :]
        gate *= tl.load(scales_ptr, mask=is_output, other=0.0)[:, None] * x_scales
        up *= tl.load(scales_ptr + out_features, mask=is_output, other=0.0)[:, None] * x_scales
    out = (activated(gate, ACTIVATION=ACTIVATION) * up).to(out_ptr.dtype.element_ty)
    out_ptrs = out_ptr + places[:, None] * out_features + outputs[None, :]
    tl.store(out_ptrs, tl.trans(out), mask=is_place[:, None] & is_output[None, :])


@triton.jit
def _down_kernel(
    hidden_ptr,
    hidden_scales_ptr,
    weight_ptr,
    weight_scales_ptr,
    out_ptr,
    pairs_ptr,
    tiles_ptr,
    in_features,
    out_features,
    HAS_SCALES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    expert, places, is_place, outputs = _tile(tiles_ptr, out_features, BLOCK_M, BLOCK_N)
    if expert < 0:
        return
    is_output = outputs < out_features
    inputs = tl.arange(0, BLOCK_K)
    hidden_ptrs = hidden_ptr + places[None, :] * in_features + inputs[:, None]
    rows = expert * out_features + outputs
    weight_ptrs = weight_ptr + rows[:, None] * in_features + inputs[None, :]
    out = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for start in range(0, in_features, BLOCK_K):
        is_input = inputs < in_features - start
        hidden = tl.load(hidden_ptrs + start, mask=is_place[None, :] & is_input[:, None], other=0.0)
        is_weight = is_output[:, None] & is_input[None, :]
        weight = tl.load(weight_ptrs + start, mask=is_weight, other=0.0)
        out = tl.dot(weight, hidden, out, input_precision="ieee")  # [BLOCK_N, BLOCK_M]
    if HAS_SCALES:
        scales = tl.load(weight_scales_ptr + rows, mask=is_output, other=0.0)
        out *= scales[:, None] * tl.load(hidden_scales_ptr + places, mask=is_place, other=0.0)
    pairs = tl.load(pairs_ptr + places, mask=is_place, other=0).to(tl.int64)
    out_ptrs = out_ptr + pairs[:, None] * out_features + outputs[None, :]
    out = tl.trans(out.to(out_ptr.dtype.element_ty))
    tl.store(out_ptrs, out, mask=is_place[:, None] & is_output[None, :])


@triton.jit
def _tile(tiles_ptr, out_features, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The program's expert, int64, or -1; its places among the pairs, and its outputs."""
    num_blocks = tl.cdiv(out_features, BLOCK_N)
    tile, block = tl.program_id(0) // num_blocks, tl.program_id(0) % num_blocks
    expert = tl.load(tiles_ptr + tile * 3).to(tl.int64)
    places = tl.load(tiles_ptr + tile * 3 + 1).to(tl.int64) + tl.arange(0, BLOCK_M)
    is_place = places < tl.load(tiles_ptr + tile * 3 + 2)
    return expert, places, is_place, block * BLOCK_N + tl.arange(0, BLOCK_N)
