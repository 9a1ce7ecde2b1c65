"""The decoder: tokens of all rows, flattened, in; logits of the rows that sample out.

The Llama family's: RMSNorm, rotary positions, grouped-query attention over a paged cache, SwiGLU.
Source: LLaMA (Touvron et al., 2023); parameters have the names of Hugging Face's checkpoints,
with q, k, v and gate, up stacked into one matrix each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.decoder_layers import DecoderLayers, LayerWeights
from octavo.kernels.device_layers import DeviceLayers, DeviceLayerWeights
from octavo.kernels.device_linear import DeviceWeight
from octavo.kernels.kv_blocks import KvBlocks
from octavo.kernels.kv_pages import KvPages
from octavo.kernels.linear import PackedWeight, linear
from octavo.kernels.linear_argmax import LinearArgmax
from octavo.kernels.paged_tokens import PagedTokens
from octavo.kernels.workspace import Workspace

from .config import ModelConfig
from .rope import cos_sin_table


@dataclass(frozen=True, slots=True)
class StepInput:
    """What one forward pass computes.

    Attributes:
        input_ids: int32 [num_tokens].
        tokens: where they are.
        logits_indices: int64 or int32 [num_logits], the tokens whose logits are wanted; None: all
            tokens.
    """

    input_ids: Tensor
    tokens: PagedTokens
    logits_indices: Tensor | None


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    embed_tokens: Tensor
    """[vocab_size, hidden_size]; its dtype is that of all activations."""
    layers: tuple[LayerWeights | DeviceLayerWeights, ...]
    norm: Tensor
    lm_head: PackedWeight | DeviceWeight
    """Answers in float32."""


class Decoder:
    """The one decoder. Holds weights, the table of rotary positions, and the pages it writes."""

    def __init__(
        self,
        config: ModelConfig,
        weights: DecoderWeights,
        kv_cache: Sequence[KvPages | KvBlocks],
        max_model_len: int,
    ) -> None:
        """`kv_cache` has the pages of each layer."""
        self.config = config
        self.dtype = weights.embed_tokens.dtype
        self._weights = weights
        self._best_tokens = LinearArgmax(weights.lm_head)
        self.layers = _layers(config, weights, kv_cache, max_model_len)

    @property
    def is_native(self) -> bool:
        """Whether the layers run in C++, on the kernels' own threads."""
        return self.layers.is_native

    def forward(self, step: StepInput) -> Tensor:
        """Return the logits of `hidden_states`: float32 [num_logits, vocab_size]."""
        return self.logits(self.hidden_states(step))

    def hidden_states(self, step: StepInput) -> Tensor:
        """Run the model over a step's tokens and write their keys and values to the cache.

        Returns:
            What the head takes: [num_logits, hidden_size].
        """
        return self.layers.hidden_states(step.input_ids, step.tokens, step.logits_indices)

    def logits(self, hidden: Tensor, workspace: Workspace | None = None) -> Tensor:
        """Apply the head to rows of `hidden_states`; float32 [len(hidden), vocab_size]."""
        return linear(hidden, self._weights.lm_head, workspace)

    def best_tokens(self, hidden: Tensor) -> NDArray[np.int64]:
        """Return the token of the largest logit of each row, -1 where there is none.

        The next call gives the answer's memory away.
        """
        return self._best_tokens.of(hidden)


def _layers(
    config: ModelConfig,
    weights: DecoderWeights,
    kv_cache: Sequence[KvPages | KvBlocks],
    max_model_len: int,
) -> DecoderLayers | DeviceLayers:
    """Return the layers for the processor that weights and cache are laid out for."""
    cos_sin = cos_sin_table(config, max_model_len).to(weights.embed_tokens.device)
    pages = [each for each in kv_cache if isinstance(each, KvPages)]
    if pages:
        return DecoderLayers(
            [each for each in weights.layers if isinstance(each, LayerWeights)],
            pages,
            cos_sin,
            embed_tokens=weights.embed_tokens,
            norm=weights.norm,
            num_heads=config.num_heads,
            eps=config.rms_norm_eps,
        )
    blocks = [each for each in kv_cache if isinstance(each, KvBlocks)]
    return DeviceLayers(
        [each for each in weights.layers if isinstance(each, DeviceLayerWeights)],
        blocks,
        cos_sin,
        embed_tokens=weights.embed_tokens,
        norm=weights.norm,
        num_heads=config.num_heads,
        eps=config.rms_norm_eps,
    )
