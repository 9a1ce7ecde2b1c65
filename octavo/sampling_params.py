"""SamplingParams: how the offline API samples and when it stops, with vLLM's names and defaults."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, get_type_hints

import msgspec
from msgspec import Meta

from .field_types import PositiveUint32, TopK, Truncation, Uint32
from .typed_value import typed
from .v1 import common_pb2, inference_pb2


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """What one prompt's outputs are drawn by; values are checked when it is used."""

    n: PositiveUint32 = 1
    """Outputs of the prompt, which is computed once."""
    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_p: float = 1.0
    """Smallest set of tokens whose probabilities sum to at least this; 1: all."""
    top_k: TopK = 0
    """Most probable tokens kept; 0 or -1: all."""
    min_p: float = 0.0
    """Keeps tokens at least this share as probable as the most probable one."""
    presence_penalty: float = 0.0
    """Subtracted from the logit of every token that the output has."""
    frequency_penalty: float = 0.0
    """Subtracted from a token's logit once for each time the output has it."""
    repetition_penalty: float = 1.0
    """Divides the positive and multiplies the negative logits of tokens seen before."""
    seed: int | None = None
    """Makes the outputs repeatable; output i draws from seed + i. -1 is the same as None."""
    stop: str | Sequence[str] | None = None
    """Text that ends the output."""
    stop_token_ids: Sequence[Uint32] | None = None
    """Tokens that end the output."""
    bad_words: Sequence[str] | None = None
    """Texts that the output may not have."""
    include_stop_str_in_output: bool = False
    """Show the stop string that matched."""
    ignore_eos: bool = False
    """Go on past the model's end-of-sequence tokens."""
    max_tokens: PositiveUint32 | None = 16
    """Most tokens of one output; None: what is left of the context."""
    min_tokens: Uint32 = 0
    """No end token before so many tokens."""
    logprobs: Uint32 | None = None
    """Log-probabilities of each token and of so many of the best, 20 at most; None: none."""
    prompt_logprobs: Uint32 | None = None
    """The same for the prompt's tokens, with 5 at most."""
    logit_bias: Mapping[Uint32, float] | None = None
    """Added to the logits of these tokens."""
    allowed_token_ids: Annotated[Sequence[Uint32], Meta(min_length=1)] | None = None
    """Only these tokens can be drawn."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the text."""
    truncate_prompt_tokens: Truncation | None = None
    """Keep so many of the prompt's last tokens; -1: what the context holds beside max_tokens."""

    def to_options(self) -> inference_pb2.GenerationOptions:
        """Return them as they cross the wire; raises InvalidArgument for what does not fit it."""
        self._check_types()
        return inference_pb2.GenerationOptions(
            sampling=self._sampling(),
            stop=common_pb2.StopConditions(
                max_tokens=self.max_tokens,
                stop=(self.stop,) if isinstance(self.stop, str) else self.stop,
                stop_token_ids=self.stop_token_ids,
                ignore_eos=self.ignore_eos,
                min_tokens=self.min_tokens,
                include_stop_str_in_output=self.include_stop_str_in_output,
            ),
            n=self.n,
            seed=None if self.seed in (None, -1) else self.seed % 2**64,
            logprobs=self.logprobs,
            prompt_logprobs=self.prompt_logprobs,
            bad_words=self.bad_words,
            skip_special_tokens=self.skip_special_tokens,
            truncate_prompt_tokens=self.truncate_prompt_tokens,
        )

    def _check_types(self) -> None:
        try:
            msgspec.convert(self, _Checked, from_attributes=True)
        except msgspec.ValidationError:
            # One after another, for the sentence: all at once takes a twentieth of the time.
            for name, its_type in _TYPES.items():
                typed(getattr(self, name), its_type, name)

    def _sampling(self) -> common_pb2.SamplingParams:
        bias = self.logit_bias or {}
        # All are sent: one that is left out would be the model's own default.
        return common_pb2.SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=0 if self.top_k == -1 else self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias_token_ids=list(bias),
            logit_bias_values=list(bias.values()),
            allowed_token_ids=self.allowed_token_ids or (),
        )


_TYPES = get_type_hints(SamplingParams, include_extras=True)
_Checked = msgspec.defstruct("_Checked", list(_TYPES.items()))
