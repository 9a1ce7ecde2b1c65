"""The layers of a decoder on a GPU, cut where their attentions are.

    enter      embedded tokens          → queries of the first layer
    go_on      attended in one layer    → queries of the next
    leave      attended in the last     → hidden states of the tokens that are wanted

What lies between two attentions depends on nothing of a step but how many tokens it has. An
addition to the residual stream and the norm behind it are one launch.

Sources: the layer is LLaMA's (Touvron et al., 2023); the cut is that of vLLM's piecewise graphs
(https://github.com/vllm-project/vllm).
"""

from collections.abc import Sequence

from torch import Tensor

from .add_rms_norm import add_rms_norm
from .decoder_layers import LayerWeights
from .device_attention import step_attention
from .kv_blocks import KvBlocks
from .linear import linear
from .paged_tokens import PagedTokens
from .rms_norm import rms_norm
from .rope_and_store_kv import rope_and_store_kv


class DeviceLayers:
    """The layers of one model, each with its blocks of the cache; as DecoderLayers on a CPU."""

    is_native = False

    def __init__(
        self,
        layers: Sequence[LayerWeights],
        kv_cache: Sequence[KvBlocks],
        cos_sin: Tensor,
        *,
        norm: Tensor,
        num_heads: int,
        eps: float,
    ) -> None:
        """Tie weights and cache together.

        Args:
            cos_sin: float32 [max_positions, head_dim], as rope_and_store_kv takes it.
            norm: [hidden_size], of the norm behind the last layer.
            num_heads: of queries.
            eps: of the norms.
        """
        self._layers = layers
        self._kv_cache = kv_cache
        self._cos_sin = cos_sin
        self._norm = norm
        self._num_heads = num_heads
        self._eps = eps
        self._attention = step_attention(kv_cache[0], num_heads, kv_cache[0].head_dim ** -0.5)

    def hidden_states(self, residual: Tensor, tokens: PagedTokens, wanted: Tensor | None) -> Tensor:
        """Run all layers, and the norm behind them for those tokens whose logits are wanted.

        Args:
            residual: [num_tokens, hidden_size], contiguous: the embedded tokens. Overwritten.
            wanted: int64 or int32 [num_wanted], tokens of the step; None: all.
        Returns:
            [num_wanted, hidden_size], what the head takes.
        """
        self._attention.begin(tokens)
        q = self.enter(residual, tokens)
        for i, blocks in enumerate(self._kv_cache[:-1]):
            q = self.go_on(i, self._attention.attend(q, blocks), residual, tokens)
        return self.leave(self._attention.attend(q, self._kv_cache[-1]), residual, wanted)

    def enter(self, residual: Tensor, tokens: PagedTokens) -> Tensor:
        """Compute what the first layer does before its attention.

        Returns:
            q: [num_tokens, num_heads, head_dim]; keys and values are in the cache.
        """
        hidden = rms_norm(residual, self._layers[0].input_layernorm, self._eps)
        return self._before_attention(0, hidden, tokens)

    def go_on(self, i: int, attended: Tensor, residual: Tensor, tokens: PagedTokens) -> Tensor:
        """Compute what lies between the attention of layer `i` and that of the next.

        Args:
            attended: [num_tokens, num_heads, head_dim], contiguous.
            residual: [num_tokens, hidden_size], contiguous; both layers' parts are added.
        Returns:
            q of the next layer, as `enter` does.
        """
        norm = self._layers[i + 1].input_layernorm
        hidden = self._behind_attention(self._layers[i], attended.flatten(1), residual, norm)
        return self._before_attention(i + 1, hidden, tokens)

    def leave(self, attended: Tensor, residual: Tensor, wanted: Tensor | None) -> Tensor:
        """Compute what lies behind the last attention, for those tokens alone that are wanted.

        Of a long prompt that is one of a thousand.
        """
        attended = attended.flatten(1)
        if wanted is not None:
            attended = attended.index_select(0, wanted)
            residual = residual.index_select(0, wanted)
        return self._behind_attention(self._layers[-1], attended, residual, self._norm)

    def _before_attention(self, i: int, hidden: Tensor, tokens: PagedTokens) -> Tensor:
        blocks = self._kv_cache[i]
        qkv = linear(hidden, self._layers[i].qkv_proj).view(len(hidden), -1, blocks.head_dim)
        sizes = (self._num_heads, blocks.num_kv_heads, blocks.num_kv_heads)
        q, k, v = qkv.split_with_sizes(sizes, dim=1)
        positions, slots = tokens.positions, tokens.slot_mapping
        rope_and_store_kv(q, k, v, self._cos_sin, positions, blocks, slots)
        return q

    def _behind_attention(
        self, layer: LayerWeights, attended: Tensor, residual: Tensor, next_norm: Tensor
    ) -> Tensor:
        """Finish a layer; return the residual stream behind it, normalised for what comes next."""
        projected = linear(attended, layer.o_proj)
        hidden = add_rms_norm(projected, residual, layer.post_attention_layernorm, self._eps)
        down = linear(linear(hidden, layer.gate_up_proj), layer.down_proj)
        return add_rms_norm(down, residual, next_norm, self._eps)
