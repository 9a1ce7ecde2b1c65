"""Draws the next token of each row that samples, with that row's own parameters and noise."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.sampling import sample

from .rows import Rows


def sample_rows(logits: Tensor, rows: Rows, sampled: NDArray[np.intp]) -> NDArray[np.int64]:
    """Return a token for each row of `sampled`, or -1 where its logits are no numbers.

    Args:
        logits: float32 [len(sampled), vocab_size].
    """
    # A token's noise depends on the position it will have, so a row that is computed again, here
    # or elsewhere, draws the same.
    positions = rows.num_tokens[sampled].astype(np.int64)
    tokens = sample(
        logits,
        temperature=torch.from_numpy(rows.temperature[sampled]),
        top_k=torch.from_numpy(rows.top_k[sampled]),
        top_p=torch.from_numpy(rows.top_p[sampled]),
        seeds=torch.from_numpy(rows.seed[sampled].view(np.int64)),
        positions=torch.from_numpy(positions),
    )
    return tokens.numpy()
