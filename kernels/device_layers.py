"""The layers of a decoder on a GPU, cut where their attentions are.

    residual = embedding(input_ids)
    for each layer:  piece, attention        a piece ends one layer and begins the next
    leave                                    for the tokens alone that are wanted

A piece depends on nothing of a step but how many tokens it has, and hands on what it computes in
memory that it is given. An addition to the residual stream and the norm behind it are one launch;
it, or that of SiLU, also quantizes what a product with a weight of 8 bits takes.

Sources: the layer is LLaMA's (Touvron et al., 2023); the cut is that of vLLM's piecewise graphs
(https://github.com/vllm-project/vllm).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .activation_quantize import silu_and_mul_quantize
from .add_rms_norm import add_rms_norm
from .add_rms_norm_quantize import add_rms_norm_quantize
from .device_attention import step_attention
from .device_linear import DeviceWeight, device_linear
from .kv_blocks import KvBlocks
from .paged_tokens import PagedTokens
from .quantize_rows import QuantizedRows
from .rms_norm import rms_norm
from .rms_norm_quantize import rms_norm_quantize
from .rope_and_store_kv import rope_and_store_kv
from .silu_and_mul import silu_and_mul


@dataclass(frozen=True, slots=True)
class DeviceLayerWeights:
    """One layer; q, k, v and gate, up are stacked into one matrix each."""

    input_layernorm: Tensor
    qkv_proj: DeviceWeight
    o_proj: DeviceWeight
    post_attention_layernorm: Tensor
    gate_up_proj: DeviceWeight
    down_proj: DeviceWeight


@dataclass(frozen=True, slots=True)
class Activations:
    """What pieces and attentions hand on, in the dtype of the model.

    Attributes:
        residual: [num_tokens, hidden_size].
        q, attended: [num_tokens, num_heads, head_dim].
    """

    residual: Tensor
    q: Tensor
    attended: Tensor

    def first(self, num_tokens: int) -> "Activations":
        return Activations(
            self.residual[:num_tokens], self.q[:num_tokens], self.attended[:num_tokens]
        )


class DeviceLayers:
    """The layers of one model, each with its blocks of the cache; as DecoderLayers on a CPU."""

    is_native = False

    def __init__(
        self,
        layers: Sequence[DeviceLayerWeights],
        kv_cache: Sequence[KvBlocks],
        cos_sin: Tensor,
        *,
        embed_tokens: Tensor,
        norm: Tensor,
        num_heads: int,
        eps: float,
    ) -> None:
        """Tie weights and cache together; the arguments are those of DecoderLayers."""
        self._layers = layers
        self._kv_cache = kv_cache
        self._cos_sin = cos_sin
        self._embed_tokens = embed_tokens
        self._norm = norm
        self._num_heads = num_heads
        self._eps = eps
        self._attention = step_attention(kv_cache[0], num_heads, kv_cache[0].head_dim ** -0.5)

    def __len__(self) -> int:
        return len(self._layers)

    def hidden_states(
        self, input_ids: Tensor, tokens: PagedTokens, wanted: Tensor | None
    ) -> Tensor:
        """Run the tokens through all layers; as DecoderLayers.hidden_states."""
        activations = self.activations(len(input_ids))
        self.begin(tokens)
        for i in range(len(self)):
            self.run_piece(i, input_ids, tokens, activations)
            self.attend(i, activations)
        return self.leave(activations, wanted)

    def activations(self, num_tokens: int) -> Activations:
        """Take memory for a step's."""
        weight = self._embed_tokens
        heads = (num_tokens, self._num_heads, self._kv_cache[0].head_dim)
        residual = weight.new_empty(num_tokens, weight.shape[1])
        return Activations(residual, weight.new_empty(heads), weight.new_empty(heads))

    def begin(self, tokens: PagedTokens) -> None:
        """Plan the attentions of a step, before the first."""
        self._attention.begin(tokens)

    def run_piece(
        self, i: int, input_ids: Tensor, tokens: PagedTokens, activations: Activations
    ) -> None:
        """Compute what lies before the attention of layer `i`, and behind the one before it.

        Args:
            input_ids: int32 [num_tokens].
            tokens: of which positions and slots are read, not the rows; keys and values are
                written to their slots.
            activations: for num_tokens; q is written, residual changed.
        """
        layer, blocks, residual = self._layers[i], self._kv_cache[i], activations.residual
        if i == 0:
            torch.index_select(self._embed_tokens, 0, input_ids, out=residual)
            hidden = _normalised(residual, layer.input_layernorm, self._eps, layer.qkv_proj)
        else:
            down = self._behind_attention(i - 1, activations.attended.flatten(1), residual)
            norm = layer.input_layernorm
            hidden = _added_and_normalised(down, residual, norm, self._eps, layer.qkv_proj)
        qkv = device_linear(hidden, layer.qkv_proj)
        qkv = qkv.view(len(qkv), -1, blocks.head_dim)
        sizes = (self._num_heads, blocks.num_kv_heads, blocks.num_kv_heads)
        q, k, v = qkv.split_with_sizes(sizes, dim=1)
        slots = tokens.slot_mapping
        rope_and_store_kv(
            q, k, v, self._cos_sin, tokens.positions, blocks, slots, rotated=activations.q
        )

    def attend(self, i: int, activations: Activations) -> None:
        """Attend in layer `i`, for the tokens of the step that was begun, and no others."""
        self._attention.attend(activations.q, self._kv_cache[i], activations.attended)

    def leave(self, activations: Activations, wanted: Tensor | None) -> Tensor:
        """Compute what lies behind the last attention; of a long prompt for one of a thousand.

        Args:
            wanted: int64 or int32 [num_wanted], tokens of the step; None: all, in place.
        Returns:
            [num_wanted, hidden_size], what the head takes.
        """
        attended, residual = activations.attended.flatten(1), activations.residual
        if wanted is not None:
            attended = attended.index_select(0, wanted)
            residual = residual.index_select(0, wanted)
        down = self._behind_attention(-1, attended, residual)
        return add_rms_norm(down, residual, self._norm, self._eps)

    def _behind_attention(self, i: int, attended: Tensor, residual: Tensor) -> Tensor:
        """Finish layer `i`, but for adding to the residual stream what is returned."""
        layer = self._layers[i]
        projected = device_linear(attended, layer.o_proj)
        norm, taker = layer.post_attention_layernorm, layer.gate_up_proj
        hidden = _added_and_normalised(projected, residual, norm, self._eps, taker)
        gate_up = device_linear(hidden, layer.gate_up_proj)
        return device_linear(_activated(gate_up, layer.down_proj), layer.down_proj)


def _normalised(x: Tensor, norm: Tensor, eps: float, taker: DeviceWeight) -> Tensor | QuantizedRows:
    """Return the norm of `x` in the numbers that a product with `taker` takes."""
    dtype = taker.quantized_dtype
    return rms_norm(x, norm, eps) if dtype is None else rms_norm_quantize(x, norm, eps, dtype)


def _added_and_normalised(
    x: Tensor, residual: Tensor, norm: Tensor, eps: float, taker: DeviceWeight
) -> Tensor | QuantizedRows:
    """Add `x` to the residual stream; return its norm as `_normalised` does."""
    if taker.quantized_dtype is None:
        return add_rms_norm(x, residual, norm, eps)
    return add_rms_norm_quantize(x, residual, norm, eps, taker.quantized_dtype)


def _activated(gate_up: Tensor, taker: DeviceWeight) -> Tensor | QuantizedRows:
    """Return SiLU of gate, times up, as `_normalised` does."""
    dtype = taker.quantized_dtype
    return silu_and_mul(gate_up) if dtype is None else silu_and_mul_quantize(gate_up, dtype)
