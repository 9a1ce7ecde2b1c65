"""All layers in one call against the same operations one by one, in float64."""

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from octavo.kernels.decoder_layers import (
    DecoderLayers,
    LayerWeights,
    hidden_states_by_operation,
)
from octavo.kernels.kv_pages import KvPages, page_size
from octavo.kernels.linear import PackedWeight, pack_weight
from octavo.kernels.paged_tokens import PagedTokens
from octavo.kernels.quantized_linear import pack_quantized_weight
from octavo.kernels.quantized_weight import QuantizedWeight, quantize_int4, quantize_int8
from tests.kernels.closeness import DTYPES, assert_close

BLOCK_SIZE = 16
EPS = 1e-5
# (sequence length, tokens that the cache has already)
ROWS = [(1, 0), (40, 0), (70, 69), (33, 20)]


@dataclass(frozen=True)
class Shape:
    hidden: int
    intermediate: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_layers: int = 2

    @property
    def num_qkv_heads(self) -> int:
        return self.num_heads + 2 * self.num_kv_heads


SHAPES = [
    Shape(48, 101, 6, 2, 16),
    Shape(64, 160, 4, 4, 40),
    Shape(30, 24, 3, 1, 10),
    # Deep enough that a product fetches several pieces of what comes after it.
    Shape(144, 200, 4, 2, 32),
    # As many heads to a KV head, and as wide ones, as there is room for.
    Shape(32, 40, 64, 1, 2),
    Shape(32, 40, 4, 2, 256),
]


@dataclass(frozen=True)
class PlainLayer:
    """Weights as they are before they are packed, [out_features, in_features]."""

    norms: tuple[Tensor, Tensor]
    qkv: Tensor
    o: Tensor
    gate_up: Tensor
    down: Tensor

    @staticmethod
    def random(shape: Shape, dtype: torch.dtype) -> "PlainLayer":
        def matrix(out_features: int, in_features: int) -> Tensor:
            return (torch.randn(out_features, in_features) / math.sqrt(in_features)).to(dtype)

        heads = shape.num_heads * shape.head_dim
        return PlainLayer(
            ((1 + torch.rand(shape.hidden)).to(dtype), (1 + torch.rand(shape.hidden)).to(dtype)),
            matrix(shape.num_qkv_heads * shape.head_dim, shape.hidden),
            matrix(shape.hidden, heads),
            matrix(2 * shape.intermediate, shape.hidden),
            matrix(shape.hidden, shape.intermediate),
        )

    def packed(self, pack: Callable[..., PackedWeight] = pack_weight) -> LayerWeights:
        first, second = self.norms
        return LayerWeights(
            first,
            pack(self.qkv),
            pack(self.o),
            second,
            pack(self.gate_up, is_gated=True),
            pack(self.down),
        )


def cos_sin(head_dim: int) -> Tensor:
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2) / head_dim)
    phases = torch.outer(torch.arange(128).float(), frequencies)
    return torch.cat([phases.cos(), phases.sin()], dim=1)


def exact(shape: Shape, layers: list[PlainLayer], embedded: Tensor) -> Tensor:
    """One whole sequence through all layers without a cache."""
    stream = embedded.double()
    length = len(stream)
    cos, sin = cos_sin(shape.head_dim)[:length].double().unsqueeze(1).chunk(2, dim=-1)

    def rotated(heads: Tensor) -> Tensor:
        a, b = heads.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    for layer in layers:
        first, second = (norm.double() for norm in layer.norms)
        qkv = F.rms_norm(stream, first.shape, first, EPS) @ layer.qkv.double().T
        q, k, v = qkv.view(length, -1, shape.head_dim).split_with_sizes(
            (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads), dim=1
        )
        q, k, v = (heads.transpose(0, 1) for heads in (rotated(q), rotated(k), v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        stream = stream + attended.transpose(0, 1).reshape(length, -1) @ layer.o.double().T
        gate, up = (F.rms_norm(stream, second.shape, second, EPS) @ layer.gate_up.double().T).chunk(
            2, dim=-1
        )
        stream = stream + (F.silu(gate) * up) @ layer.down.double().T
    return stream


def paged(chunks: list[tuple[int, int]]) -> PagedTokens:
    """Row i has the blocks 8 i + 7, 8 i + 6, ...; of each row (its length, tokens computed)."""
    tables = torch.arange(8 * len(chunks)).view(-1, 8).flip(1)
    positions = [torch.arange(done, length) for length, done in chunks]
    slots = [
        table[each // BLOCK_SIZE] * BLOCK_SIZE + each % BLOCK_SIZE
        for table, each in zip(tables, positions, strict=True)
    ]
    counts = torch.tensor([0] + [len(each) for each in positions])
    return PagedTokens(
        torch.cat(positions),
        torch.cat(slots),
        tables.int(),
        torch.tensor([length for length, _ in chunks]).int(),
        counts.cumsum(0).int(),
    )


def decoder_of(
    shape: Shape,
    layers: list[LayerWeights],
    embed_tokens: Tensor,
    cache_dtype: torch.dtype | None = None,
) -> DecoderLayers:
    """Return a decoder whose cache holds NaN, or of int8 -1."""
    cache_dtype = cache_dtype or embed_tokens.dtype
    size = page_size(BLOCK_SIZE, shape.head_dim, cache_dtype)
    nobodys = math.nan if cache_dtype.is_floating_point else -1
    cache_shape = (len(layers), 8 * len(ROWS), shape.num_kv_heads, 2, size)
    cache = torch.full(cache_shape, nobodys, dtype=cache_dtype)
    pages = [KvPages(layer, BLOCK_SIZE, shape.head_dim) for layer in cache]
    return DecoderLayers(
        layers,
        pages,
        cos_sin(shape.head_dim),
        embed_tokens=embed_tokens,
        norm=(1 + torch.rand(shape.hidden)).to(embed_tokens.dtype),
        num_heads=shape.num_heads,
        eps=EPS,
    )


def check(shape: Shape, dtype: torch.dtype, *, slack: float) -> None:
    layers = [PlainLayer.random(shape, dtype) for _ in range(shape.num_layers)]
    sequences = [torch.randn(length, shape.hidden).to(dtype) for length, _ in ROWS]
    decoder = decoder_of(shape, [layer.packed() for layer in layers], torch.cat(sequences))
    token_ids = torch.arange(sum(length for length, _ in ROWS)).int()
    of_rows = torch.split(token_ids, [length for length, _ in ROWS])
    # What the cache has already was computed one row at a time.
    prefix = torch.cat([each[:done] for each, (_, done) in zip(of_rows, ROWS, strict=True)])
    decoder.hidden_states(prefix, paged([(done, 0) for _, done in ROWS]), None)
    new = torch.cat([each[done:] for each, (_, done) in zip(of_rows, ROWS, strict=True)])
    expected = torch.cat(
        [exact(shape, layers, each)[done:] for each, (_, done) in zip(sequences, ROWS, strict=True)]
    )
    expected = F.rms_norm(expected, decoder.norm.shape, decoder.norm.double(), EPS)
    assert_close(decoder.hidden_states(new, paged(ROWS), None), expected, slack=slack)
    # More than there are tokens: one may be wanted twice.
    wanted = torch.cat([torch.arange(len(new)), torch.tensor([7, 0, len(new) - 1])])
    hidden = decoder.hidden_states(new, paged(ROWS), wanted)
    assert_close(hidden, expected[wanted], slack=slack)
    assert_close(
        decoder.hidden_states(new, paged(ROWS), wanted[-2:]), expected[[0, -1]], slack=slack
    )
    assert decoder.hidden_states(new, paged(ROWS), wanted[:0]).shape == (0, shape.hidden)


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chunks_of_several_rows(cpu: ctypes.CDLL, shape: Shape, dtype: torch.dtype) -> None:
    # Errors of some fifteen operations one after the other.
    check(shape, dtype, slack=15)


@pytest.mark.parametrize(("heads", "head_dim"), [((65, 1), 16), ((2, 1), 258)])
def test_heads_that_the_kernels_have_no_room_for_are_refused(
    cpu: ctypes.CDLL, heads: tuple[int, int], head_dim: int
) -> None:
    shape = Shape(32, 32, *heads, head_dim)
    with pytest.raises(AssertionError):
        decoder_of(
            shape, [PlainLayer.random(shape, torch.float32).packed()], torch.empty(1, shape.hidden)
        )


@DTYPES
def test_tensors_that_were_overwritten_are_read_anew(cpu: ctypes.CDLL, dtype: torch.dtype) -> None:
    shape = SHAPES[0]
    layers = [PlainLayer.random(shape, dtype).packed()]
    decoder = decoder_of(shape, layers, torch.randn(9, shape.hidden).to(dtype))
    token_ids, tokens = torch.tensor([3, 5], dtype=torch.int32), paged([(1, 0), (1, 0)])
    first = decoder.hidden_states(token_ids, tokens, None).clone()
    token_ids.copy_(torch.tensor([8, 3]))
    tokens.slot_mapping.copy_(tokens.slot_mapping.flip(0))
    tokens.block_tables.copy_(tokens.block_tables.flip(0))
    second = decoder.hidden_states(token_ids, tokens, None).clone()
    assert torch.equal(second[1], first[0])
    assert not torch.equal(second[0], first[1])


@DTYPES
def test_works_without_a_compiler(no_library: None, dtype: torch.dtype) -> None:
    check(SHAPES[0], dtype, slack=15)


@DTYPES
@pytest.mark.parametrize("cache_dtype", [None, torch.int8], ids=str)
def test_quantized_layers_answer_in_one_call_as_one_by_one(
    cpu: ctypes.CDLL, dtype: torch.dtype, cache_dtype: torch.dtype | None
) -> None:
    shape = SHAPES[0]

    def layer(quantize: Callable[[Tensor], QuantizedWeight]) -> LayerWeights:
        return PlainLayer.random(shape, dtype).packed(
            lambda weight, is_gated=False: pack_quantized_weight(
                quantize(weight), dtype, is_gated=is_gated
            )
        )

    chunks = [(length, 0) for length, _ in ROWS]
    num_tokens = sum(length for length, _ in ROWS)
    decoder = decoder_of(
        shape,
        [layer(quantize_int8), layer(quantize_int4)],
        torch.randn(num_tokens, shape.hidden).to(dtype),
        cache_dtype,
    )
    step = (
        torch.arange(num_tokens).int().flip(0),
        paged(chunks),
        torch.tensor([2, num_tokens - 1]),
    )
    in_one_call = decoder.hidden_states(*step)
    assert not in_one_call.isnan().any()
    assert torch.equal(in_one_call, hidden_states_by_operation(decoder, *step))
