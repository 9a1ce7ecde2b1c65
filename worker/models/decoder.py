"""The decoder: tokens of all rows, flattened, in; logits of the rows that sample out.

The Llama family's: RMSNorm, rotary positions, grouped-query attention over a paged cache, SwiGLU.
Source: LLaMA (Touvron et al., 2023); parameters have the names of Hugging Face's checkpoints,
with q, k, v and gate, up stacked into one matrix each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from octavo.kernels.kv_pages import KvPages
from octavo.kernels.linear import PackedWeight, linear
from octavo.kernels.paged_attention import paged_attention
from octavo.kernels.rms_norm import add_rms_norm, rms_norm
from octavo.kernels.rope_and_store_kv import rope_and_store_kv
from octavo.kernels.silu_and_mul import silu_and_mul

from .config import ModelConfig
from .rope import cos_sin_table


@dataclass(frozen=True, slots=True)
class StepInput:
    """What one forward pass computes: the new tokens of each row, one row after another.

    Attributes:
        input_ids: int32 [num_tokens].
        positions: int64 [num_tokens], of each token in its row.
        slot_mapping: int64 [num_tokens], where each token's keys and values go.
        block_tables: int32 [num_rows, max_blocks]; entries past a row's blocks are ignored.
        seq_lens: int32 [num_rows], tokens in the cache once this step's are.
        query_start_loc: int32 [num_rows + 1], prefix sums of the rows' new tokens.
        logits_indices: int64 [num_logits], the tokens whose logits are wanted.
    """

    input_ids: Tensor
    positions: Tensor
    slot_mapping: Tensor
    block_tables: Tensor
    seq_lens: Tensor
    query_start_loc: Tensor
    logits_indices: Tensor


@dataclass(frozen=True, slots=True)
class LayerWeights:
    input_layernorm: Tensor
    qkv_proj: PackedWeight
    o_proj: PackedWeight
    post_attention_layernorm: Tensor
    gate_up_proj: PackedWeight
    down_proj: PackedWeight


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    embed_tokens: Tensor
    """[vocab_size, hidden_size]; its dtype is that of all activations."""
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    lm_head: PackedWeight
    """Answers in float32."""


class Decoder:
    """The one decoder. Holds weights and the table of rotary positions, and no state."""

    def __init__(self, config: ModelConfig, weights: DecoderWeights, max_model_len: int) -> None:
        self.config = config
        self.dtype = weights.embed_tokens.dtype
        self._weights = weights
        self._cos_sin = cos_sin_table(config, max_model_len)
        self._scale = config.head_dim**-0.5

    def forward(self, step: StepInput, kv_cache: Sequence[KvPages]) -> Tensor:
        """Return the logits of `hidden_states`: float32 [num_logits, vocab_size]."""
        return self.logits(self.hidden_states(step, kv_cache))

    def hidden_states(self, step: StepInput, kv_cache: Sequence[KvPages]) -> Tensor:
        """Run the model over a step's tokens and write their keys and values to the cache.

        Args:
            kv_cache: the pages of each layer.
        Returns:
            What the head takes: [num_logits, hidden_size].
        """
        weights = self._weights
        residual = functional.embedding(step.input_ids, weights.embed_tokens)
        hidden = rms_norm(residual, weights.layers[0].input_layernorm, self.config.rms_norm_eps)
        for i, layer in enumerate(weights.layers):
            hidden = self._attention(layer, hidden, step, kv_cache[i])
            hidden, residual = self._add_norm(hidden, residual, layer.post_attention_layernorm)
            hidden = _mlp(layer, hidden)
            if layer is not weights.layers[-1]:
                following = weights.layers[i + 1]
                hidden, residual = self._add_norm(hidden, residual, following.input_layernorm)
        # Only tokens after which one is sampled need logits: one of a thousand in a long prompt.
        hidden, residual = hidden[step.logits_indices], residual[step.logits_indices]
        hidden, _ = self._add_norm(hidden, residual, weights.norm)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head to rows of `hidden_states`; float32 [len(hidden), vocab_size]."""
        return linear(hidden, self._weights.lm_head)

    def _attention(
        self, layer: LayerWeights, hidden: Tensor, step: StepInput, pages: KvPages
    ) -> Tensor:
        config = self.config
        qkv = linear(hidden, layer.qkv_proj).view(len(hidden), -1, config.head_dim)
        q, k, v = qkv.split_with_sizes(
            (config.num_heads, config.num_kv_heads, config.num_kv_heads), dim=1
        )
        rope_and_store_kv(q, k, v, self._cos_sin, step.positions, pages, step.slot_mapping)
        attended = paged_attention(
            q, pages, step.block_tables, step.seq_lens, step.query_start_loc, self._scale
        )
        return linear(attended.view(len(hidden), -1), layer.o_proj)

    def _add_norm(self, hidden: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return add_rms_norm(hidden, residual, weight, self.config.rms_norm_eps)


def _mlp(layer: LayerWeights, hidden: Tensor) -> Tensor:
    return linear(silu_and_mul(linear(hidden, layer.gate_up_proj)), layer.down_proj)
