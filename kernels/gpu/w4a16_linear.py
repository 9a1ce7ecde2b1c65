"""Linear layer with a weight of 4 bits on a GPU: unpacked in registers, multiplied by tensor cores.

The weight is the left factor: Hopper multiplies 64 rows of it at least, and takes them from
registers, where they have just been unpacked; the tokens on the right may be 16. A group's scale is
applied to the sum of its products, so that what is multiplied are whole numbers.

Sources: Marlin (Frantar et al., 2024); Machete (https://github.com/vllm-project/vllm) for the order
of the factors.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.int4_weight import BLOCK_SIZE, Int4Weight

from .aot import Specialization
from .architecture import Architecture, TensorCores
from .interpreter import interpreting
from .launches import Launches, rounded_up, rounded_up_tokens
from .tiles import (
    TileLaunch,
    grouped_tile,
    split_buffers,
    steps_of_split,
    store_tile,
    sum_over_splits,
)

# The interpreter knows no instructions.
_INTERPRETED = tl.constexpr(interpreting())


def w4a16_linear(
    x: Tensor, weight: Int4Weight, bias: Tensor | None = None, arrivals: Tensor | None = None
) -> Tensor:
    """Multiply, as kernels.w4a16_linear does; one launch, a permutation is one more."""
    if x.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(f"4-bit weights take float16 or bfloat16 activations, not {x.dtype}")
    if weight.permutation is not None:
        x = x.index_select(1, weight.permutation)
    num_tokens, in_features = x.shape
    out = torch.empty(num_tokens, weight.out_features, dtype=x.dtype, device=x.device)
    if num_tokens == 0:
        return out
    shape = Int4Shape.of(weight.group_size, num_tokens, weight.out_features, in_features)
    launch = LAUNCHES.choose(shape, x.device)
    num_tiles, num_splits = launch.grid(num_tokens, weight.out_features, in_features)
    tile_size = launch.block_m * launch.block_n
    sums, arrivals = split_buffers(num_tiles, num_splits, tile_size, arrivals, x.device)
    _w4a16_linear_kernel[(num_tiles, num_splits)](
        x_ptr=x,
        words_ptr=weight.words,
        scales_and_zeros_ptr=weight.scales_and_zeros,
        bias_ptr=bias,
        out_ptr=out,
        sums_ptr=sums,
        arrivals_ptr=arrivals,
        num_tokens=num_tokens,
        out_features=weight.out_features,
        in_features=in_features,
        group_size=weight.group_size,
        GROUPS_PER_BLOCK=max(1, BLOCK_SIZE // weight.group_size),
        BLOCK_M=launch.block_m,
        BLOCK_N=launch.block_n,
        num_warps=launch.num_warps,
        num_stages=launch.num_stages,
    )
    return out


class Int4Shape(NamedTuple):
    """What a launch depends on, sizes of tokens and features rounded up.

    Attributes:
        group_size: weights that have a scale in common, up to those of a step.
    """

    group_size: int
    num_tokens: int
    out_features: int
    in_features: int

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(group_size: int, num_tokens: int, out_features: int, in_features: int) -> "Int4Shape":
        features = rounded_up(out_features), rounded_up(in_features)
        return Int4Shape(min(group_size, BLOCK_SIZE), rounded_up_tokens(num_tokens), *features)


def _reasoned(shape: Int4Shape, architecture: Architecture) -> TileLaunch:
    """Up to 64 tokens the weight is read once, and memory is what limits; not yet measured.

    A warp group takes 128 outputs of few tokens, so that what a step costs beside the unpacking is
    shared by more numbers; of 64 tokens registers allow 64. Groups of 32 want more of them, and so
    do products of single warps; on Blackwell Triton 3.7.1 keeps the sums of each plane in tensor
    memory, too small for 128 tokens.
    """
    if shape.num_tokens <= 32:
        return TileLaunch(shape.num_tokens, 128, BLOCK_SIZE, 4, 4)
    is_warp_group = architecture.tensor_cores is TensorCores.WARP_GROUP
    if shape.num_tokens <= 64 or shape.group_size < 64 or not is_warp_group:
        return TileLaunch(64, 128, BLOCK_SIZE, 8, 4)
    return TileLaunch(128, 128, BLOCK_SIZE, 8, 3)


def _is_possible(shape: Int4Shape, launch: TileLaunch) -> bool:
    """Say whether a step is what is packed together."""
    return launch.block_k == BLOCK_SIZE


LAUNCHES = Launches("w4a16_linear", Int4Shape, TileLaunch, _reasoned, _is_possible)


def aot_specializations() -> Iterator[Specialization]:
    for dtype in ("bf16", "fp16"):
        signature = dict.fromkeys(("x_ptr", "bias_ptr", "out_ptr"), f"*{dtype}") | {
            "words_ptr": "*i16",
            "scales_and_zeros_ptr": "*i32",
            "sums_ptr": "*fp32",
            "arrivals_ptr": "*i32",
            "num_tokens": "i32",
            "out_features": "i32:16",
            "in_features": "i32:16",
            "group_size": "i32:16",
        }
        sizes = product((32, 64, 128), (16, 32, 64, 128))
        shapes = [Int4Shape.of(*each, 4096, 4096) for each in sizes]
        wanted = [
            (architecture, shape.group_size, launch)
            for architecture, shape, launch in LAUNCHES.to_compile(shapes)
        ]
        for architecture, group_size, launch in dict.fromkeys(wanted):
            constexprs = {
                "GROUPS_PER_BLOCK": BLOCK_SIZE // group_size,
                "BLOCK_M": launch.block_m,
                "BLOCK_N": launch.block_n,
            }
            resources = (constexprs, launch.num_warps, launch.num_stages, architecture)
            yield Specialization(_w4a16_linear_kernel, signature, *resources)


@triton.jit(do_not_specialize=["num_tokens"])
def _w4a16_linear_kernel(
    x_ptr,
    words_ptr,
    scales_and_zeros_ptr,
    bias_ptr,
    out_ptr,
    sums_ptr,
    arrivals_ptr,
    num_tokens,
    out_features,
    in_features,
    group_size,
    GROUPS_PER_BLOCK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    BLOCK_K: tl.constexpr = 128
    PLANE: tl.constexpr = 32
    PLANES_PER_GROUP: tl.constexpr = 4 // GROUPS_PER_BLOCK
    DTYPE: tl.constexpr = x_ptr.dtype.element_ty

    tile, split, num_splits = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    num_m_tiles, num_n_tiles = tl.cdiv(num_tokens, BLOCK_M), tl.cdiv(out_features, BLOCK_N)
    m_tile, n_tile = grouped_tile(tile, num_m_tiles, num_n_tiles, GROUP=8)
    tokens = m_tile * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    outputs = n_tile * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    is_token, is_output = tokens < num_tokens, outputs < out_features

    first_block, last_block = steps_of_split(split, num_splits, tl.cdiv(in_features, BLOCK_K))
    inputs = tl.arange(0, PLANE)  # [PLANE]
    x_ptrs = x_ptr + tokens[None, :].to(tl.int64) * in_features + inputs[:, None]
    words_ptrs = words_ptr + outputs[:, None].to(tl.int64) * PLANE + inputs[None, :]
    x_ptrs += first_block * BLOCK_K
    words_ptrs += first_block.to(tl.int64) * out_features * PLANE

    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for block in range(first_block, last_block):
        words = tl.load(words_ptrs, mask=is_output[:, None], other=0)  # [BLOCK_N, PLANE]
        for plane in tl.static_range(4):
            first_input = block * BLOCK_K + plane * PLANE
            if plane % PLANES_PER_GROUP == 0:
                group = (first_input // group_size).to(tl.int64)
                bits = tl.load(
                    scales_and_zeros_ptr + group * out_features + outputs, mask=is_output, other=0
                )  # [BLOCK_N]
                zeros = _as_numbers((bits & 31).to(tl.int16), DTYPE)[:, None]
                products = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
            is_input = inputs < in_features - first_input
            x = tl.load(
                x_ptrs + plane * PLANE, mask=is_input[:, None] & is_token[None, :], other=0.0
            )  # [PLANE, BLOCK_M]
            numbers = _difference(_plane(words, plane, DTYPE), zeros)  # [BLOCK_N, PLANE]
            products = tl.dot(numbers, x, products)
            if plane % PLANES_PER_GROUP == PLANES_PER_GROUP - 1:
                total += (bits & -32).to(tl.float32, bitcast=True)[:, None] * products
        x_ptrs += BLOCK_K
        words_ptrs += out_features.to(tl.int64) * PLANE

    if num_splits > 1:
        total, is_last = sum_over_splits(
            total, sums_ptr, arrivals_ptr, tile, split, num_splits, ROWS=BLOCK_N, COLUMNS=BLOCK_M
        )
        is_token = is_token & is_last
    store_tile(total, bias_ptr, out_ptr, tokens, outputs, is_token, is_output, out_features)


@triton.constexpr_function
def _exponent(dtype):
    """Return the bits of a number whose last bits count ones: 128, or 1024."""
    return 0x4300 if dtype == tl.bfloat16 else 0x6400


@triton.constexpr_function
def _plane_instructions(plane, dtype):
    """Return what makes of two words two numbers: shifts them, masks them, adds the exponent."""
    exponents = _exponent(dtype) * 0x00010001
    return (
        f"{{ .reg .b32 t; shr.b32 t, $1, {4 * plane};"
        f" lop3.b32 $0, t, 0x000f000f, {exponents}, 0xea; }}"
    )


@triton.jit
def _plane(words, PLANE: tl.constexpr, DTYPE: tl.constexpr):
    """Return four bits of each word, 4 * PLANE from the lowest, as numbers above the exponent's."""
    if _INTERPRETED:
        return _as_numbers((words >> (4 * PLANE)) & 15, DTYPE)
    else:
        # The compiler would shift one word at a time, and then put pairs together again.
        bits = tl.inline_asm_elementwise(
            _plane_instructions(PLANE, DTYPE), "=r,r", [words], dtype=tl.int16, is_pure=True, pack=2
        )
        return bits.to(DTYPE, bitcast=True)


@triton.jit
def _as_numbers(bits, DTYPE: tl.constexpr):
    """Return whole numbers below 32, int16, as numbers above the exponent's."""
    return (bits | _exponent(DTYPE)).to(DTYPE, bitcast=True)


@triton.jit
def _difference(a, b):
    """Subtract numbers of 16 bits; all are whole, and so is what comes of it."""
    if _INTERPRETED:
        # It subtracts the bits of bfloat16s.
        return (a.to(tl.float32) - b.to(tl.float32)).to(a.dtype)
    else:
        return a - b
