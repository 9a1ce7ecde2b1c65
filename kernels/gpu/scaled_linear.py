"""Linear layer of 8-bit numbers on a GPU: scales, bias and rounding at the end of each tile.

The weight is the left factor: Hopper multiplies 64 rows of it at least; the tokens on the right may
be 16. With blocks, each step of 128 inputs is scaled before it is added: that also keeps to 128 the
fp8 products in a sum of Hopper's tensor cores, which has some 14 bits (DeepSeek-V3, 2024).
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.scaled_linear import SCALE_BLOCK_SIZE, ScaledWeight

from .aot import Specialization
from .architecture import Architecture
from .launches import Launches, rounded_up, rounded_up_tokens
from .tiles import (
    TileLaunch,
    grouped_tile,
    split_buffers,
    steps_of_split,
    store_tile,
    sum_over_splits,
)


def scaled_linear(
    x: Tensor,
    x_scales: Tensor,
    weight: ScaledWeight,
    out_dtype: torch.dtype,
    bias: Tensor | None = None,
    arrivals: Tensor | None = None,
) -> Tensor:
    """Multiply, as kernels.scaled_linear does, in one launch."""
    num_tokens, in_features = x.shape
    out_features = len(weight.values)
    out = torch.empty(num_tokens, out_features, dtype=out_dtype, device=x.device)
    if num_tokens == 0:
        return out
    shape = ScaledShape.of(x.dtype, num_tokens, out_features, in_features)
    launch = (BLOCK_LAUNCHES if weight.has_blocks else LAUNCHES).choose(shape, x.device)
    grid = launch.grid(num_tokens, out_features, in_features)
    sums, arrivals = split_buffers(*grid, launch.block_m * launch.block_n, arrivals, x.device)
    tensors = {
        "x_ptr": x,
        "x_scales_ptr": x_scales,
        "weight_ptr": weight.values,
        "weight_scales_ptr": weight.scales,
        "bias_ptr": bias,
        "out_ptr": out,
        "sums_ptr": sums,
        "arrivals_ptr": arrivals,
    }
    sizes = {
        "num_tokens": num_tokens,
        "out_features": out_features,
        "in_features": in_features,
    }
    constants = {
        "BLOCK_M": launch.block_m,
        "BLOCK_N": launch.block_n,
        "BLOCK_K": launch.block_k,
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
    }
    if weight.has_blocks:
        _block_scaled_linear_kernel[grid](**tensors, **sizes, **constants)
    else:
        strides = {
            "x_scales_stride": x_scales.expand(num_tokens).stride(0),
            "weight_scales_stride": weight.scales.expand(out_features).stride(0),
        }
        _scaled_linear_kernel[grid](**tensors, **sizes, **strides, **constants)
    return out


class ScaledShape(NamedTuple):
    """What a launch depends on: of both factors, "fp8" or "int8", and sizes, rounded up."""

    dtype: str
    num_tokens: int
    out_features: int
    in_features: int

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(
        dtype: torch.dtype, num_tokens: int, out_features: int, in_features: int
    ) -> "ScaledShape":
        name = "int8" if dtype == torch.int8 else "fp8"
        features = rounded_up(out_features), rounded_up(in_features)
        return ScaledShape(name, rounded_up_tokens(num_tokens), *features)


def _reasoned(shape: ScaledShape, architecture: Architecture) -> TileLaunch:
    """Up to 64 tokens the weight is read once, and memory is what limits; not yet measured.

    Three programs of 16 tokens share a processor then, each with 50 kB of loads under way. With
    many tokens a tile is as large as the registers of eight warps: its sums are 128 of a thread's.
    Three steps of it take 144 KiB of shared memory; where that is too much, it is half as high.
    """
    if shape.num_tokens <= 64:
        return TileLaunch(shape.num_tokens, 128, 128, 4, 4)
    if shape.num_tokens <= 512 or architecture.shared_kib < 144:
        return TileLaunch(128, 128, 128, 8, 4)
    return TileLaunch(256, 128, 128, 8, 4)


def _block_reasoned(shape: ScaledShape, architecture: Architecture) -> TileLaunch:
    """The same, where a thread has sums of a step beside those of all; not yet measured."""
    return _reasoned(shape._replace(num_tokens=min(shape.num_tokens, 512)), architecture)


def _has_one_scale(shape: ScaledShape, launch: TileLaunch) -> bool:
    """Say whether a step of a tile is in one block of the weight's scales."""
    return launch.block_k == SCALE_BLOCK_SIZE and launch.block_n <= SCALE_BLOCK_SIZE


LAUNCHES = Launches("scaled_linear", ScaledShape, TileLaunch, _reasoned)
BLOCK_LAUNCHES = Launches(
    "block_scaled_linear", ScaledShape, TileLaunch, _block_reasoned, _has_one_scale
)


def aot_specializations() -> Iterator[Specialization]:
    for type_name, out_type in (("fp8e4nv", "bf16"), ("i8", "fp16")):
        signature = {
            "x_ptr": f"*{type_name}",
            "x_scales_ptr": "*fp32",
            "weight_ptr": f"*{type_name}",
            "weight_scales_ptr": "*fp32",
            "bias_ptr": f"*{out_type}",
            "out_ptr": f"*{out_type}",
            "sums_ptr": "*fp32",
            "arrivals_ptr": "*i32",
            "num_tokens": "i32",
            "out_features": "i32:16",
            "in_features": "i32:16",
        }
        strides = {"x_scales_stride": "i32", "weight_scales_stride": "i32"}
        for resources in _to_compile(LAUNCHES, type_name):
            yield Specialization(_scaled_linear_kernel, signature | strides, *resources)
        if type_name == "fp8e4nv":
            for resources in _to_compile(BLOCK_LAUNCHES, type_name):
                yield Specialization(_block_scaled_linear_kernel, signature, *resources)


def _to_compile(
    launches: Launches[ScaledShape, TileLaunch], type_name: str
) -> Iterator[tuple[dict[str, int], int, int, Architecture]]:
    """Yield the constants of a kernel, and what it is launched with, once each."""
    dtype = torch.int8 if type_name == "i8" else torch.float8_e4m3fn
    shapes = [ScaledShape.of(dtype, num, 4096, 4096) for num in (16, 32, 64, 512, 1024)]
    wanted = [
        (architecture, launch)
        for architecture, shape, launch in launches.to_compile(shapes)
        if shape.dtype == shapes[0].dtype
    ]
    for architecture, launch in dict.fromkeys(wanted):
        constexprs = {
            "BLOCK_M": launch.block_m,
            "BLOCK_N": launch.block_n,
            "BLOCK_K": launch.block_k,
        }
        yield constexprs, launch.num_warps, launch.num_stages, architecture


# A scale for all tokens and one for each differ in their stride; of one token they do not.
@triton.jit(do_not_specialize=["num_tokens", "x_scales_stride"])
def _scaled_linear_kernel(
    x_ptr,
    x_scales_ptr,
    weight_ptr,
    weight_scales_ptr,
    bias_ptr,
    out_ptr,
    sums_ptr,
    arrivals_ptr,
    num_tokens,
    out_features,
    in_features,
    x_scales_stride,
    weight_scales_stride,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    SUM_TYPE: tl.constexpr = tl.int32 if x_ptr.dtype.element_ty == tl.int8 else tl.float32
    tile, split, num_splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    m_tile, n_tile = grouped_tile(
        tile, tl.cdiv(num_tokens, BLOCK_M), tl.cdiv(out_features, BLOCK_N), GROUP=8
    )
    tokens = m_tile * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    outputs = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    inputs = tl.arange(0, BLOCK_K)  # [BLOCK_K]
    is_token, is_output = tokens < num_tokens, outputs < out_features
    first_step, last_step = steps_of_split(split, num_splits, tl.cdiv(in_features, BLOCK_K))
    x_ptrs = x_ptr + tokens[None, :].to(tl.int64) * in_features + inputs[:, None]
    weight_ptrs = weight_ptr + outputs[:, None].to(tl.int64) * in_features + inputs[None, :]

    sums = tl.zeros((BLOCK_N, BLOCK_M), dtype=SUM_TYPE)
    for step in range(first_step, last_step):
        is_input = inputs < in_features - step * BLOCK_K
        x = tl.load(
            x_ptrs + step * BLOCK_K, mask=is_input[:, None] & is_token[None, :], other=0.0
        )  # [BLOCK_K, BLOCK_M]
        weight = tl.load(
            weight_ptrs + step * BLOCK_K, mask=is_output[:, None] & is_input[None, :], other=0.0
        )  # [BLOCK_N, BLOCK_K]
        sums = tl.dot(weight, x, sums, out_dtype=SUM_TYPE)

    total = sums.to(tl.float32)
    if num_splits > 1:
        total, is_last = sum_over_splits(
            total, sums_ptr, arrivals_ptr, tile, split, num_splits, ROWS=BLOCK_N, COLUMNS=BLOCK_M
        )
        is_token = is_token & is_last
    x_scales = tl.load(x_scales_ptr + tokens * x_scales_stride, mask=is_token, other=0.0)
    weight_scales = tl.load(
        weight_scales_ptr + outputs * weight_scales_stride, mask=is_output, other=0.0
    )
    total *= x_scales[None, :] * weight_scales[:, None]
    store_tile(total, bias_ptr, out_ptr, tokens, outputs, is_token, is_output, out_features)


@triton.jit(do_not_specialize=["num_tokens"])
def _block_scaled_linear_kernel(
    x_ptr,
    x_scales_ptr,
    weight_ptr,
    weight_scales_ptr,
    bias_ptr,
    out_ptr,
    sums_ptr,
    arrivals_ptr,
    num_tokens,
    out_features,
    in_features,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # A step is a block of the scales, and a tile is in one row of the weight's.
    SCALE_BLOCK: tl.constexpr = 128
    tl.static_assert(BLOCK_K == SCALE_BLOCK and SCALE_BLOCK % BLOCK_N == 0)
    tile, split, num_splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    m_tile, n_tile = grouped_tile(
        tile, tl.cdiv(num_tokens, BLOCK_M), tl.cdiv(out_features, BLOCK_N), GROUP=8
    )
    tokens = m_tile * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    outputs = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    inputs = tl.arange(0, BLOCK_K)  # [BLOCK_K]
    is_token, is_output = tokens < num_tokens, outputs < out_features
    num_steps = tl.cdiv(in_features, BLOCK_K)
    first_step, last_step = steps_of_split(split, num_splits, num_steps)
    x_ptrs = x_ptr + tokens[None, :].to(tl.int64) * in_features + inputs[:, None]
    weight_ptrs = weight_ptr + outputs[:, None].to(tl.int64) * in_features + inputs[None, :]
    weight_scales_ptr += n_tile * BLOCK_N // SCALE_BLOCK * num_steps

    # Scales are loaded a step ahead: what no product reads, Triton does not load early by itself.
    x_scales, weight_scale = _block_scales(
        x_scales_ptr, weight_scales_ptr, first_step, last_step, tokens, num_tokens
    )
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for step in range(first_step, last_step):
        is_input = inputs < in_features - step * BLOCK_K
        x = tl.load(
            x_ptrs + step * BLOCK_K, mask=is_input[:, None] & is_token[None, :], other=0.0
        )  # [BLOCK_K, BLOCK_M]
        weight = tl.load(
            weight_ptrs + step * BLOCK_K, mask=is_output[:, None] & is_input[None, :], other=0.0
        )  # [BLOCK_N, BLOCK_K]
        next_x_scales, next_weight_scale = _block_scales(
            x_scales_ptr, weight_scales_ptr, step + 1, last_step, tokens, num_tokens
        )
        total += tl.dot(weight, x) * (x_scales * weight_scale)[None, :]
        x_scales, weight_scale = next_x_scales, next_weight_scale

    if num_splits > 1:
        total, is_last = sum_over_splits(
            total, sums_ptr, arrivals_ptr, tile, split, num_splits, ROWS=BLOCK_N, COLUMNS=BLOCK_M
        )
        is_token = is_token & is_last
    store_tile(total, bias_ptr, out_ptr, tokens, outputs, is_token, is_output, out_features)


@triton.jit
def _block_scales(x_scales_ptr, weight_scales_ptr, step, last_step, tokens, num_tokens):
    """Return the scales of a step: of the tokens, [BLOCK_M], and of the weight."""
    is_step = step < last_step
    x_scales = tl.load(
        x_scales_ptr + step * num_tokens + tokens, mask=is_step & (tokens < num_tokens), other=0.0
    )
    return x_scales, tl.load(weight_scales_ptr + step, mask=is_step, other=0.0)
