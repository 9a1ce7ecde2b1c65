"""Append tokens: what was computed counts, and sampled tokens go to the rows they belong to.

    num_computed_tokens[row] = seq_len                                   of each row with work
    token_ids[row, position] = token_id,   num_tokens[row] = position + 1    of each that sampled

The next step finds them there: no token passes the host on its way from one step to the next.
"""

from torch import Tensor

from .gpu.interpreter import interpreting


def append_tokens(
    rows: Tensor,
    seq_lens: Tensor,
    sampled_rows: Tensor,
    source_rows: Tensor,
    positions: Tensor,
    sampled: Tensor,
    token_ids: Tensor,
    num_tokens: Tensor,
    num_computed_tokens: Tensor,
) -> None:
    """Advance the rows of a step; a row that is forked in it first gets its source's tokens.

    Args:
        rows: int32 [num_requests], with work in the step; -1 fills up.
        seq_lens: int32 [num_requests], tokens of each whose keys and values there are now.
        sampled_rows: int32 [num_sampled], that get a token; none occurs twice.
        source_rows: int32 [num_sampled], whose tokens each continues: its own, unless it is forked.
        positions: int64 [num_sampled], of the token to be appended: all before it are computed.
        sampled: int64 [num_sampled]; below 0 where none could be drawn: such a row gets token 0,
            for plans that are under way count on its position.
        token_ids: int32 [num_rows, max_tokens]; num_tokens, num_computed_tokens: int32 [num_rows];
            of all rows, written.
    """
    arguments = (rows, seq_lens, sampled_rows, source_rows, positions, sampled)
    state = (token_ids, num_tokens, num_computed_tokens)
    if not (rows.is_cuda or interpreting()):
        return append_tokens_reference(*arguments, *state)
    # Triton is there where a device is.
    from .gpu import append_tokens as gpu

    gpu.append_tokens(*arguments, *state)


def append_tokens_reference(
    rows: Tensor,
    seq_lens: Tensor,
    sampled_rows: Tensor,
    source_rows: Tensor,
    positions: Tensor,
    sampled: Tensor,
    token_ids: Tensor,
    num_tokens: Tensor,
    num_computed_tokens: Tensor,
) -> None:
    for row, seq_len in zip(rows.tolist(), seq_lens.tolist(), strict=True):
        if row >= 0:
            num_computed_tokens[row] = seq_len
    columns = (sampled_rows, source_rows, positions, sampled)
    for row, source, position, token in zip(*(each.tolist() for each in columns), strict=True):
        token_ids[row, :position] = token_ids[source, :position].clone()
        token_ids[row, position] = max(token, 0)
        num_tokens[row] = position + 1
        num_computed_tokens[row] = position
