"""Step input: what a forward pass needs of the rows, made where the rows are.

For a row with c computed tokens and n new ones, the positions c ... c + n − 1 are computed; their
keys and values go to block table[position // block_size], at position % block_size.

Nothing comes from the host but which rows, and how many tokens of each: the token that was sampled
last is on the device, and nobody waits for it. Idea: vLLM's model runner v2.
"""

import torch
from torch import Tensor

from .gpu.interpreter import interpreting
from .paged_tokens import PagedTokens


def step_input(
    rows: Tensor,
    token_ids: Tensor,
    num_computed_tokens: Tensor,
    tables: Tensor,
    block_size: int,
    input_ids: Tensor,
    tokens: PagedTokens,
) -> None:
    """Fill in `input_ids`, and of `tokens` all but query_start_loc, which says what is to be done.

    Args:
        rows: int32 [num_requests]; -1 fills the batch up: its tokens are 0 at position 0, are
            written nowhere (slot -1), and attend to nothing (a seq_len of 0).
        token_ids: int32 [num_rows, max_tokens], of all rows.
        num_computed_tokens: int32 [num_rows].
        tables: int32 [num_rows, max_blocks], the block tables of all rows.
        input_ids: int32 [num_tokens], to be written.
        tokens: those tensors that are written are [num_tokens] and [num_requests] long or longer;
            a row of block_tables is written as far as its row has blocks for its tokens.
    """
    if not (rows.is_cuda or interpreting()):
        arguments = (rows, token_ids, num_computed_tokens, tables, block_size, input_ids, tokens)
        return step_input_reference(*arguments)
    # Triton is there where a device is.
    from .gpu import step_input as gpu

    gpu.step_input(rows, token_ids, num_computed_tokens, tables, block_size, input_ids, tokens)


def step_input_reference(
    rows: Tensor,
    token_ids: Tensor,
    num_computed_tokens: Tensor,
    tables: Tensor,
    block_size: int,
    input_ids: Tensor,
    tokens: PagedTokens,
) -> None:
    starts = tokens.query_start_loc.tolist()
    for request, row in enumerate(rows.tolist()):
        span = slice(starts[request], starts[request + 1])
        if row < 0:
            input_ids[span] = tokens.positions[span] = tokens.seq_lens[request] = 0
            tokens.slot_mapping[span] = -1
            continue
        num_computed = int(num_computed_tokens[row])
        seq_len = num_computed + span.stop - span.start
        positions = torch.arange(num_computed, seq_len, device=rows.device)
        blocks = tables[row, positions // block_size].long()
        input_ids[span] = token_ids[row, positions]
        tokens.positions[span] = positions
        tokens.slot_mapping[span] = blocks * block_size + positions % block_size
        tokens.seq_lens[request] = seq_len
        num_blocks = -(-seq_len // block_size)
        tokens.block_tables[request, :num_blocks] = tables[row, :num_blocks]
