"""The layers of a decoder: the residual stream of a step's tokens through all of them.

    residual += attention(norm(residual));  residual += mlp(norm(residual))

From token ids to what the head takes is one call, for what Python takes between two operations is
as long as a small one takes. The reference says it operation by operation. On a GPU it is
device_layers.py that runs them.

Source: the layer is LLaMA's (Touvron et al., 2023).
"""

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .cpu import library
from .kv_pages import KvPages
from .linear import PackedWeight, add_linear, linear
from .paged_attention import check_heads, paged_attention
from .paged_tokens import PagedTokens
from .rms_norm import rms_norm
from .rope_and_store_kv import rope_and_store_kv
from .workspace import Workspace


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer; q, k, v and gate, up are stacked into one matrix each, the latter gated."""

    input_layernorm: Tensor
    qkv_proj: PackedWeight
    o_proj: PackedWeight
    post_attention_layernorm: Tensor
    gate_up_proj: PackedWeight
    down_proj: PackedWeight


class DecoderLayers:
    """The layers of one model, each with its pages of the cache."""

    def __init__(
        self,
        layers: Sequence[LayerWeights],
        kv_cache: Sequence[KvPages],
        cos_sin: Tensor,
        *,
        embed_tokens: Tensor,
        norm: Tensor,
        num_heads: int,
        eps: float,
    ) -> None:
        """Tie weights and cache together.

        Args:
            cos_sin: float32 [max_positions, head_dim], as rope_and_store_kv takes it.
            embed_tokens: [vocab_size, hidden_size]; its dtype is that of all activations.
            norm: [hidden_size], of the norm behind the last layer.
            num_heads: of queries.
            eps: of the norms.
        """
        self.layers = layers
        self.kv_cache = kv_cache
        self.cos_sin = cos_sin
        self.embed_tokens = embed_tokens
        self.norm = norm
        self.num_heads = num_heads
        self.eps = eps
        self.scale = kv_cache[0].head_dim ** -0.5
        self._native = _Native.of(self)

    @property
    def is_native(self) -> bool:
        """Whether all of it runs in C++, on the kernels' threads, see threads.py."""
        return self._native is not None

    def hidden_states(
        self, input_ids: Tensor, tokens: PagedTokens, wanted: Tensor | None
    ) -> Tensor:
        """Run the tokens through all layers, and those whose logits are wanted through the norm.

        Args:
            input_ids: int32 [num_tokens].
            tokens: where they are; their keys and values are written to the cache.
            wanted: int64 [num_wanted], tokens of the step; None: all.
        Returns:
            [num_wanted, hidden_size], what the head takes; the next call gives its memory away.
        """
        if self._native is None:
            return hidden_states_by_operation(self, input_ids, tokens, wanted)
        return self._native.hidden_states(input_ids, tokens, wanted)


def hidden_states_by_operation(
    decoder: DecoderLayers, input_ids: Tensor, tokens: PagedTokens, wanted: Tensor | None
) -> Tensor:
    """The same, with an operation a call."""
    residual = functional.embedding(input_ids, decoder.embed_tokens)
    for layer, pages in zip(decoder.layers, decoder.kv_cache, strict=True):
        hidden = rms_norm(residual, layer.input_layernorm, decoder.eps)
        attended = _attention(decoder, layer, pages, hidden, tokens)
        add_linear(residual, attended, layer.o_proj)
        hidden = rms_norm(residual, layer.post_attention_layernorm, decoder.eps)
        add_linear(residual, linear(hidden, layer.gate_up_proj), layer.down_proj)
    # Only tokens after which one is sampled need logits: one of a thousand in a long prompt.
    if wanted is not None:
        residual = residual.index_select(0, wanted)
    return rms_norm(residual, decoder.norm, decoder.eps)


def _attention(
    decoder: DecoderLayers,
    layer: LayerWeights,
    pages: KvPages,
    hidden: Tensor,
    tokens: PagedTokens,
) -> Tensor:
    qkv = linear(hidden, layer.qkv_proj).view(len(hidden), -1, pages.head_dim)
    num_kv_heads = pages.num_kv_heads
    q, k, v = qkv.split_with_sizes((decoder.num_heads, num_kv_heads, num_kv_heads), dim=1)
    rope_and_store_kv(q, k, v, decoder.cos_sin, tokens.positions, pages, tokens.slot_mapping)
    rows = (tokens.block_tables, tokens.seq_lens, tokens.query_start_loc)
    return paged_attention(q, pages, *rows, decoder.scale).view(len(hidden), -1)


class _Native:
    """What the C++ side keeps of a decoder: descriptors of all it needs, made once."""

    def __init__(self, decoder: DecoderLayers, cpu: ctypes.CDLL) -> None:
        self._run = cpu.hidden_states
        # The descriptors point into what the decoder holds.
        self._decoder = decoder
        first, pages = decoder.layers[0], decoder.kv_cache[0]
        check_heads(decoder.num_heads, pages)
        # The C++ side takes any other type of the cache than that of activations for bytes.
        assert pages.dtype in (decoder.embed_tokens.dtype, torch.int8), pages.dtype
        self._hidden_size = first.o_proj.out_features
        self._attended = first.o_proj.in_features
        self._width = max(first.qkv_proj.out_features, first.gate_up_proj.out_features)
        self._model = _Model(
            num_layers=len(decoder.layers),
            hidden_size=self._hidden_size,
            num_heads=decoder.num_heads,
            num_kv_heads=pages.num_kv_heads,
            head_dim=pages.head_dim,
            block_size=pages.block_size,
            block_bytes=pages.tensor[0].nbytes,
            cos_sin=decoder.cos_sin.data_ptr(),
            embed_tokens=decoder.embed_tokens.data_ptr(),
            norm=decoder.norm.data_ptr(),
            eps=decoder.eps,
            scale=decoder.scale,
            dtype=library.DTYPES[decoder.embed_tokens.dtype],
            cache_dtype=library.CACHE_DTYPES[pages.dtype],
        )
        self._layers = (_Layer * len(decoder.layers))(*map(_layer, decoder.layers))
        places = [each.tensor.data_ptr() for each in decoder.kv_cache]
        self._pages = (c_void_p * len(places))(*places)
        self._dtype = decoder.embed_tokens.dtype
        self._workspaces = (Workspace(), Workspace(), Workspace(), Workspace())
        self._bound: _BoundStep | None = None

    @staticmethod
    def of(decoder: DecoderLayers) -> "_Native | None":
        """None where not all of it runs in C++."""
        cpu = library.load_for(decoder.embed_tokens.dtype)
        is_native = all(
            packed.layout.is_native
            for layer in decoder.layers
            for packed in (layer.qkv_proj, layer.o_proj, layer.gate_up_proj, layer.down_proj)
        )
        return _Native(decoder, cpu) if cpu and is_native else None

    def hidden_states(
        self, input_ids: Tensor, tokens: PagedTokens, wanted: Tensor | None
    ) -> Tensor:
        # Steps that differ in numbers alone come as the same tensors, overwritten.
        bound = self._bound
        if bound is None or not bound.is_of(input_ids, tokens, wanted):
            bound = self._bound = self._bind(input_ids, tokens, wanted)
        self._run(*bound.arguments)
        return bound.answer

    def _bind(self, input_ids: Tensor, tokens: PagedTokens, wanted: Tensor | None) -> "_BoundStep":
        num_tokens = len(input_ids)
        assert input_ids.dtype == torch.int32 and input_ids.is_contiguous()
        assert tokens.positions.dtype == tokens.slot_mapping.dtype == torch.int64
        assert tokens.positions.shape == tokens.slot_mapping.shape == (num_tokens,)
        assert tokens.block_tables.dtype == tokens.seq_lens.dtype == torch.int32
        assert tokens.query_start_loc.dtype == torch.int32 and tokens.block_tables.stride(1) == 1
        assert len(tokens.block_tables) == len(tokens.seq_lens) == len(tokens.query_start_loc) - 1
        assert wanted is None or (wanted.dtype == torch.int64 and wanted.is_contiguous())
        num_wanted = num_tokens if wanted is None else len(wanted)
        sizes = (self._hidden_size, self._hidden_size, self._attended, self._width)
        residual, hidden, attended, wide = (
            workspace.take((max(num_tokens, num_wanted), size), self._dtype)
            for workspace, size in zip(self._workspaces, sizes, strict=True)
        )
        step = _Step(
            input_ids.data_ptr(),
            tokens.positions.data_ptr(),
            tokens.slot_mapping.data_ptr(),
            None if wanted is None else wanted.data_ptr(),
            tokens.block_tables.data_ptr(),
            tokens.seq_lens.data_ptr(),
            tokens.query_start_loc.data_ptr(),
            num_tokens,
            len(tokens.seq_lens),
            tokens.block_tables.stride(0),
            num_wanted,
        )
        activations = _Activations(
            residual.data_ptr(), hidden.data_ptr(), attended.data_ptr(), wide.data_ptr()
        )
        arguments = (self._model, self._layers, self._pages, step, activations)
        references = tuple(map(ctypes.byref, arguments))
        return _BoundStep(input_ids, tokens, wanted, references, hidden[:num_wanted])


@dataclass(frozen=True, slots=True)
class _BoundStep:
    """A step's tensors, and the arguments that point into them."""

    input_ids: Tensor
    tokens: PagedTokens
    wanted: Tensor | None
    arguments: tuple[object, ...]
    answer: Tensor

    def is_of(self, input_ids: Tensor, tokens: PagedTokens, wanted: Tensor | None) -> bool:
        is_same = self.input_ids is input_ids and self.tokens is tokens
        return is_same and self.wanted is wanted


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("num_layers", "hidden_size")),
        *((name, c_int64) for name in ("num_heads", "num_kv_heads", "head_dim")),
        *((name, c_int64) for name in ("block_size", "block_bytes")),
        *((name, c_void_p) for name in ("cos_sin", "embed_tokens", "norm")),
        ("eps", c_float),
        ("scale", c_float),
        ("dtype", c_int32),
        ("cache_dtype", c_int32),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("input_norm", c_void_p),
        ("post_attention_norm", c_void_p),
        *((f"{name}_proj", library.PackedWeight) for name in ("qkv", "o", "gate_up", "down")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("input_ids", "positions", "slot_mapping", "wanted")),
        *((name, c_void_p) for name in ("block_tables", "seq_lens", "query_start_loc")),
        *((name, c_int64) for name in ("num_tokens", "num_requests", "table_stride", "num_wanted")),
    )


class _Activations(ctypes.Structure):
    _fields_ = tuple((name, c_void_p) for name in ("residual", "hidden", "attended", "wide"))


def _layer(weights: LayerWeights) -> _Layer:
    return _Layer(
        weights.input_layernorm.data_ptr(),
        weights.post_attention_layernorm.data_ptr(),
        weights.qkv_proj.descriptor,
        weights.o_proj.descriptor,
        weights.gate_up_proj.descriptor,
        weights.down_proj.descriptor,
    )
