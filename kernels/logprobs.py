"""Log-probabilities: of one token of each row, and of the row's most probable ones.

    logprob[t] = logits[t] − log Σ exp(logits)

The softmax is never in memory: of all tokens but those asked for only the sum is needed.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .gpu.interpreter import interpreting


class Logprobs(NamedTuple):
    """The log-probabilities of rows.

    Attributes:
        chosen: float32 [num_rows], of the token asked for; NaN for a row that has a NaN or whose
            largest logit is not finite, of which the rest means nothing.
        ranks: int32 [num_rows], of that token, from 1.
        top: float32 [num_rows, num_top], the largest first.
        top_ids: int32 [num_rows, num_top], of the tokens that have these.
    """

    chosen: Tensor
    ranks: Tensor
    top: Tensor
    top_ids: Tensor


def logprobs(logits: Tensor, token_ids: Tensor, num_top: int) -> Logprobs:
    """Compute the log-probability and rank of a token of each row, and the most probable ones.

    Of equal tokens the one with the lower id is before the other, as everywhere.

    Args:
        logits: float32 [num_rows, vocab_size], contiguous.
        token_ids: int64 [num_rows]. Where it is negative there is none, and what is said about it
            means nothing.
        num_top: how many of the most probable tokens, at most vocab_size; 0 for none.
    """
    if logits.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import logprobs as gpu

        return gpu.logprobs(logits, token_ids, num_top)
    return logprobs_reference(logits, token_ids, num_top)


def logprobs_reference(logits: Tensor, token_ids: Tensor, num_top: int) -> Logprobs:
    all_logprobs = logits.double().log_softmax(-1).float()
    chosen_ids = token_ids.clamp(min=0)[:, None]
    chosen = logits.gather(1, chosen_ids)
    is_before = torch.arange(logits.shape[1], device=logits.device) < chosen_ids
    ranks = 1 + ((logits > chosen) | ((logits == chosen) & is_before)).sum(-1)
    top_ids = logits.sort(dim=-1, descending=True, stable=True).indices[:, :num_top]
    return Logprobs(
        all_logprobs.gather(1, chosen_ids).squeeze(1),
        ranks.int(),
        all_logprobs.gather(1, top_ids),
        top_ids.int(),
    )
