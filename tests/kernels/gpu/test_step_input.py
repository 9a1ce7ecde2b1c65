"""Step input against its reference: decoding rows, chunks, rows that only fill up."""

import pytest
import torch

from octavo.kernels.paged_tokens import PagedTokens
from octavo.kernels.step_input import step_input, step_input_reference

NUM_ROWS, MAX_TOKENS = 9, 1300
UNWRITTEN = -7


def outputs(num_tokens: int, starts: list[int], max_blocks: int) -> list[torch.Tensor]:
    """Room for more tokens, and more rows, than there are: input ids, then PagedTokens' fields."""

    def unwritten(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.full(shape, UNWRITTEN, dtype=dtype)

    return [
        unwritten(num_tokens + 5),
        unwritten(num_tokens + 5, dtype=torch.int64),
        unwritten(num_tokens + 5, dtype=torch.int64),
        unwritten(len(starts) + 2, max_blocks + 3),
        unwritten(len(starts) + 2),
        torch.tensor(starts, dtype=torch.int32),
    ]


def paged(fields: list[torch.Tensor]) -> PagedTokens:
    positions, slot_mapping, block_tables, seq_lens, query_start_loc = fields
    return PagedTokens(positions, slot_mapping, block_tables, seq_lens, query_start_loc)


@pytest.mark.parametrize("block_size", [4, 16])
def test_input_is_the_references(block_size: int, device: str) -> None:
    rows = torch.tensor([5, 0, -1, 8, 3, -1], dtype=torch.int32)
    num_new = torch.tensor([1, 3, 1, 600, 17, 2])
    num_computed = torch.full((NUM_ROWS,), 2**30, dtype=torch.int32)
    num_computed[[5, 0, 8, 3]] = torch.tensor([0, 15, 513, 1000], dtype=torch.int32)
    token_ids = torch.randint(2**31 - 1, (NUM_ROWS, MAX_TOKENS), dtype=torch.int32)
    max_blocks = -(-MAX_TOKENS // block_size)
    tables = torch.randint(2**31 - 1, (NUM_ROWS, max_blocks), dtype=torch.int32)
    starts = [0, *num_new.cumsum(0).tolist()]
    expected = outputs(starts[-1], starts, max_blocks)
    actual = [each.to(device) for each in expected]
    state = (rows, token_ids, num_computed, tables)
    step_input_reference(*state, block_size, expected[0], paged(expected[1:]))
    rows, token_ids, num_computed, tables = (each.to(device) for each in state)
    state = (rows, token_ids, num_computed, tables)
    step_input(*state, block_size, actual[0], paged(actual[1:]))
    for made, wanted in zip(actual, expected, strict=True):
        assert torch.equal(made.cpu(), wanted)
    # The slots of large block numbers are large numbers, too.
    assert expected[2].max() > 2**31
    assert (expected[3][3, : -(-1113 // block_size)] != UNWRITTEN).all()
    assert (expected[3][:, -1] == UNWRITTEN).all() and (expected[0][starts[-1] :] < 0).all()
