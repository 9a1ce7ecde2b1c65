"""The layers of a decoder on a GPU, cut where their attentions are.

    residual = embedding(input_ids)
    for each layer:  piece, attention        a piece ends one layer and begins the next
    leave                                    for the tokens alone that are wanted

A piece depends on nothing of a step but how many tokens it has, and hands on what it computes in
memory that it is given. An addition to the residual stream and the norm behind it are one launch.

Sources: the layer is LLaMA's (Touvron et al., 2023); the cut is that of vLLM's piecewise graphs
(https://github.com/vllm-project/vllm).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .add_rms_norm import add_rms_norm
from .decoder_layers import LayerWeights
from .device_attention import step_attention
from .kv_blocks import KvBlocks
from .linear import linear
from .paged_tokens import PagedTokens
from .rms_norm import rms_norm
from .rope_and_store_kv import rope_and_store_kv


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
        layers: Sequence[LayerWeights],
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
            hidden = rms_norm(residual, layer.input_layernorm, self._eps)
        else:
            hidden = self._behind_attention(
                i - 1, activations.attended.flatten(1), residual, layer.input_layernorm
            )
        qkv = linear(hidden, layer.qkv_proj).view(len(hidden), -1, blocks.head_dim)
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
        return self._behind_attention(-1, attended, residual, self._norm)

    def _behind_attention(
        self, i: int, attended: Tensor, residual: Tensor, next_norm: Tensor
    ) -> Tensor:
        """Finish layer `i`; return the residual stream behind it, normalised for what is next."""
        layer = self._layers[i]
        projected = linear(attended, layer.o_proj)
        hidden = add_rms_norm(projected, residual, layer.post_attention_layernorm, self._eps)
        down = linear(linear(hidden, layer.gate_up_proj), layer.down_proj)
        return add_rms_norm(down, residual, next_norm, self._eps)
