"""Gathers what one forward pass needs from the rows, as one flat batch of tokens."""

import numpy as np
import torch

from octavo.kernels.paged_tokens import PagedTokens

from .block_tables import ragged_range
from .models.decoder import StepInput
from .rows import PlanColumns, Rows

_GROUP = 0


def gather(rows: Rows, columns: PlanColumns) -> StepInput:
    """Return the step's input; `columns` come from `rows.apply`, and nothing was computed since.

    For row r with c computed tokens and n new ones, the positions c ... c + n - 1 are computed;
    their KV goes to block block_tables[r][position // block_size] at position % block_size.
    """
    row, num_new = columns.row, columns.num_new_tokens
    block_size = rows.limits.block_size
    starts = rows.num_computed_tokens[row]
    seq_lens = starts + num_new
    query_start_loc = np.zeros(len(row) + 1, np.int32)
    np.cumsum(num_new, out=query_start_loc[1:])

    positions = ragged_range(starts, num_new)
    token_row = np.repeat(row, num_new)
    table = rows.block_tables[_GROUP]
    blocks = table[token_row, positions // block_size].astype(np.int64)
    num_blocks = -(-int(seq_lens.max()) // block_size)
    last = query_start_loc[1:].astype(np.int64) - 1
    is_all = len(positions) == len(row) and bool(columns.needs_sample.all())
    return StepInput(
        input_ids=torch.from_numpy(rows.token_ids[token_row, positions]),
        tokens=PagedTokens(
            positions=torch.from_numpy(positions),
            slot_mapping=torch.from_numpy(blocks * block_size + positions % block_size),
            block_tables=torch.from_numpy(table[row, :num_blocks]),
            seq_lens=torch.from_numpy(seq_lens.astype(np.int32)),
            query_start_loc=torch.from_numpy(query_start_loc),
        ),
        logits_indices=None if is_all else torch.from_numpy(last[columns.needs_sample]),
    )
