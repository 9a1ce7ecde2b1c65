"""Penalties: what rows say about single tokens, applied to their logits before sampling.

    allowed tokens → bad words → min_tokens → bias
        → repetition penalty → frequency penalty → presence penalty

Order and meaning are vLLM's (https://docs.vllm.ai, SamplingParams); the repetition penalty is
CTRL's (Keskar et al., 2019).

Nothing is counted from step to step: a row's known tokens are all there is to know, so a row that
comes back after a preemption, or was forked, goes on exactly as it would have.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .gpu.interpreter import interpreting


@dataclass(frozen=True, kw_only=True, slots=True)
class Penalties:
    """The penalties of all rows, one row of each tensor for each, on the device of the logits.

    Attributes:
        allowed: int32 [num_rows, ceil(vocab_size / 32)]; bit t % 32 of word t // 32 is set if
            token t may be drawn. Words of one token that are bad are left out here.
        bad_words: int32 [num_rows, max_words, max_length], each of two tokens or more, at the end
            of its places, with -1 before it. Its last token is not drawn after the others.
        min_tokens: int32 [num_rows].
        stop_token_ids: int32 [num_rows, max_stops]; not drawn before the output has min_tokens.
            -1 stands for none.
        bias_token_ids: int32 [num_rows, max_biases], none twice; -1 stands for none.
        bias_values: float32 [num_rows, max_biases], finite.
        repetition_penalty: float32 [num_rows], positive; 1 changes nothing.
        frequency_penalty, presence_penalty: float32 [num_rows], finite; 0 changes nothing.
    """

    allowed: Tensor
    bad_words: Tensor
    min_tokens: Tensor
    stop_token_ids: Tensor
    bias_token_ids: Tensor
    bias_values: Tensor
    repetition_penalty: Tensor
    frequency_penalty: Tensor
    presence_penalty: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownTokens:
    """The tokens of all rows, on the device of the logits.

    Attributes:
        token_ids: int32 [num_rows, max_tokens], the prompt and then the output.
        num_prompt_tokens: int32 [num_rows].
        num_tokens: int32 [num_rows], of prompt and output.
    """

    token_ids: Tensor
    num_prompt_tokens: Tensor
    num_tokens: Tensor


def apply_penalties(
    logits: Tensor, places: Tensor, rows: Tensor, penalties: Penalties, known: KnownTokens
) -> None:
    """Change logits[places[i]] by the penalties of row rows[i].

    What is NaN or plus infinity stays so: a row without a largest logit is still one afterwards,
    and sampling tells it.

    Args:
        logits: float32 [any, vocab_size], contiguous; changed in place.
        places, rows: int32 [num_penalized], no place twice.
    """
    if logits.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import penalties as gpu

        gpu.apply_penalties(logits, places, rows, penalties, known)
    else:
        apply_penalties_reference(logits, places, rows, penalties, known)


def apply_penalties_reference(
    logits: Tensor, places: Tensor, rows: Tensor, penalties: Penalties, known: KnownTokens
) -> None:
    bits = torch.arange(32, dtype=torch.int32, device=logits.device)
    for place, row in zip(places.tolist(), rows.tolist(), strict=True):
        changed = logits[place]  # A view.
        tokens = known.token_ids[row, : int(known.num_tokens[row])].long()
        prompt, output = tokens.tensor_split([int(known.num_prompt_tokens[row])])
        is_allowed = (penalties.allowed[row][:, None] >> bits & 1).bool().flatten()[: len(changed)]
        _ban(changed, (~is_allowed).nonzero().flatten())
        for word in penalties.bad_words[row]:
            prefix, last = word[word >= 0].long().tensor_split([-1])
            start = len(output) - len(prefix)
            if start >= 0 and torch.equal(output[start:], prefix):
                _ban(changed, last)
        if len(output) < penalties.min_tokens[row]:
            stops = penalties.stop_token_ids[row]
            _ban(changed, stops[stops >= 0].long())
        is_biased = penalties.bias_token_ids[row] >= 0
        biased = penalties.bias_token_ids[row][is_biased].long()
        changed[biased] += penalties.bias_values[row][is_biased]
        is_seen = tokens.bincount(minlength=len(changed)) > 0
        penalty = penalties.repetition_penalty[row]
        repeated = torch.where(changed > 0, changed / penalty, changed * penalty)
        changed[is_seen] = repeated[is_seen]
        counts = output.bincount(minlength=len(changed)).float()
        changed -= penalties.frequency_penalty[row] * counts
        changed -= penalties.presence_penalty[row] * (counts > 0)


def _ban(logits: Tensor, token_ids: Tensor) -> None:
    banned = logits[token_ids]
    logits[token_ids] = torch.where(banned < torch.inf, -torch.inf, banned)
