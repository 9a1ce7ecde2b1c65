"""Draws the next token of each row that samples, with that row's own parameters and noise."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.sampling import sample

from .rows import Rows

# What a client is told whose output got no token.
NO_NUMBERS = "The model's output was not a number (NaN); try again or shorten it."
NO_TOKEN_LEFT = (
    "No token is left to draw after allowed_token_ids, bad_words, min_tokens and logit_bias; allow"
    " more."
)

# What a row gets whose sampling failed: plans under way count on its next position.
ANY_TOKEN = 0


def sample_rows(logits: Tensor, rows: Rows, sampled: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return a token for each row of `sampled`, or -1 where there is none to be drawn.

    Args:
        logits: float32 [len(sampled), vocab_size]; changed by the rows' rules.
    """
    # A token's noise depends on the position it will have, so a row that is computed again, here
    # or elsewhere, draws the same.
    positions = rows.num_tokens[sampled].astype(np.int64)
    _apply_rules(logits, rows, sampled)
    sampling = rows.sampling
    tokens = sample(
        logits,
        temperature=torch.from_numpy(sampling.temperature[sampled]),
        top_k=torch.from_numpy(sampling.top_k[sampled]),
        top_p=torch.from_numpy(sampling.top_p[sampled]),
        min_p=torch.from_numpy(sampling.min_p[sampled]),
        seeds=torch.from_numpy(rows.seed[sampled].view(np.int64)),
        positions=torch.from_numpy(positions),
    )
    return tokens.numpy()


def _apply_rules(logits: Tensor, rows: Rows, sampled: NDArray[np.intp]) -> None:
    """Apply the rules of the rows that have some; a row without a largest logit is left alone."""
    for place in np.flatnonzero(rows.sampling.has_rules[sampled]).tolist():
        # A rule could hide that something is not a number.
        if logits[place].max().isfinite():
            row = sampled[place]
            known = rows.token_ids[row, : rows.num_tokens[row]]
            rows.sampling.rules[row].apply(logits[place].numpy(), known)
