"""What a request says about single tokens: which may be drawn, and whose logits are changed.

Applied in this order, before temperature, min_p, top_k and top_p:

    allowed_token_ids → bad_words → min_tokens → logit_bias
        → repetition_penalty → frequency_penalty → presence_penalty

Nothing is counted from step to step: the row's known tokens are all there is to know, so a row that
comes back after a preemption, or was forked, goes on exactly as it would have.

Order and meaning are vLLM's (https://docs.vllm.ai, SamplingParams); the repetition penalty is
CTRL's (Keskar et al., 2019).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.v1 import common_pb2, step_pb2

from .block_tables import BadPlan

TokenIds = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LogitsRules:
    """The rules of one row."""

    num_prompt_tokens: int
    allowed_token_ids: TokenIds
    """Empty: all."""
    bad_words: tuple[TokenIds, ...]
    min_tokens: int
    stop_token_ids: TokenIds
    """Not drawn before the output has min_tokens."""
    bias_token_ids: TokenIds
    bias_values: NDArray[np.float32]
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float

    def apply(self, logits: NDArray[np.float32], token_ids: NDArray[np.int32]) -> None:
        """Change the logits of a row, [vocab_size], that has these tokens, prompt first."""
        output = token_ids[self.num_prompt_tokens :]
        if len(self.allowed_token_ids):
            allowed = logits[self.allowed_token_ids]
            logits[:] = -np.inf
            logits[self.allowed_token_ids] = allowed
        for word in self.bad_words:
            if _ends_with(output, word[:-1]):
                logits[word[-1]] = -np.inf
        if len(output) < self.min_tokens:
            logits[self.stop_token_ids] = -np.inf
        # A token may be named twice.
        np.add.at(logits, self.bias_token_ids, self.bias_values)
        self._penalize(logits, token_ids[: self.num_prompt_tokens], output)

    def _penalize(
        self, logits: NDArray[np.float32], prompt: NDArray[np.int32], output: NDArray[np.int32]
    ) -> None:
        if self.repetition_penalty != 1:
            seen = np.zeros(len(logits), np.bool_)
            seen[prompt] = seen[output] = True
            repeated = logits[seen]
            penalty = np.float32(self.repetition_penalty)
            logits[seen] = np.where(repeated > 0, repeated / penalty, repeated * penalty)
        if self.frequency_penalty or self.presence_penalty:
            counts = np.bincount(output, minlength=len(logits)).astype(np.float32)
            logits -= np.float32(self.frequency_penalty) * counts
            logits -= np.float32(self.presence_penalty) * (counts > 0)


def rules_of(added: step_pb2.AddedRow, vocab_size: int) -> LogitsRules | None:
    """Return the rules of a row that is added; None if it has none. Raises BadPlan."""
    sampling = added.sampling
    repetition = sampling.repetition_penalty if sampling.HasField("repetition_penalty") else 1.0
    is_plain = repetition == 1 and not (
        sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.logit_bias_token_ids
        or sampling.allowed_token_ids
        or added.min_tokens
        or added.bad_words
    )
    if is_plain:
        return None
    _check(added, repetition)

    def tokens(ids: Iterable[int]) -> TokenIds:
        array = np.array(list(ids), np.int64)
        if len(array) and array.max() >= vocab_size:
            raise BadPlan(
                f"row {added.row} has a rule for token {array.max()}; there are {vocab_size}"
            )
        return array

    return LogitsRules(
        num_prompt_tokens=added.num_prompt_tokens,
        allowed_token_ids=tokens(sampling.allowed_token_ids),
        bad_words=tuple(tokens(word.ids) for word in added.bad_words),
        min_tokens=added.min_tokens,
        stop_token_ids=tokens(added.stop_token_ids),
        bias_token_ids=tokens(sampling.logit_bias_token_ids),
        bias_values=np.array(sampling.logit_bias_values, np.float32),
        repetition_penalty=repetition,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
    )


def _check(added: step_pb2.AddedRow, repetition_penalty: float) -> None:
    sampling: common_pb2.SamplingParams = added.sampling
    if len(sampling.logit_bias_token_ids) != len(sampling.logit_bias_values):
        raise BadPlan(f"row {added.row}: logit_bias has not as many values as token ids")
    if not all(word.ids for word in added.bad_words):
        raise BadPlan(f"row {added.row} has an empty bad word")
    numbers = (sampling.presence_penalty, sampling.frequency_penalty, *sampling.logit_bias_values)
    if not (np.isfinite(numbers).all() and 0 < repetition_penalty < np.inf):
        raise BadPlan(f"row {added.row} has a penalty or bias that is no number in range")


def _ends_with(output: NDArray[np.int32], prefix: TokenIds) -> bool:
    start = len(output) - len(prefix)
    return start >= 0 and bool((output[start:] == prefix).all())
