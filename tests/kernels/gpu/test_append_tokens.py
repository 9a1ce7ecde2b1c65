"""Append tokens against its reference: sampled rows, chunks, forks, rows that failed or fill up."""

import torch

from octavo.kernels.append_tokens import append_tokens, append_tokens_reference

NUM_ROWS = 8


def int32(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def test_rows_advance_as_in_the_reference(device: str) -> None:
    token_ids = torch.randint(2**31 - 1, (NUM_ROWS, 700), dtype=torch.int32)
    state = (token_ids, torch.full((NUM_ROWS,), 2**30).int(), torch.full((NUM_ROWS,), 2**30).int())
    step = (
        # Row 6 computes a chunk; 2 has no numbers; 5 and 1 are forks of 7.
        int32(4, -1, 6, 7, 2),
        int32(9, 0, 12, 612, 1),
        int32(4, 7, 2, 5, 1),
        int32(4, 7, 2, 7, 7),
        torch.tensor([9, 612, 1, 612, 612]),
        torch.tensor([50, 51, -1, 53, 54]),
    )
    expected = [each.clone() for each in state]
    append_tokens_reference(*step, *expected)
    actual = [each.to(device) for each in state]
    append_tokens(*(each.to(device) for each in step), *actual)
    for made, wanted in zip(actual, expected, strict=True):
        assert torch.equal(made.cpu(), wanted)
    tokens, num_tokens, num_computed = expected
    assert torch.equal(tokens[1, :612], token_ids[7, :612]) and tokens[1, 612] == 54
    assert tokens[2, 1] == 0 and num_tokens[6] == 2**30 and num_computed[6] == 12
    assert num_tokens[[4, 7, 2, 5, 1]].tolist() == [10, 613, 2, 613, 613]
    assert torch.equal(tokens[3], token_ids[3])


def test_a_step_may_sample_nothing_or_more_rows_than_it_computes(device: str) -> None:
    token_ids = torch.zeros(NUM_ROWS, 5, dtype=torch.int32, device=device)
    counts = torch.zeros(2, NUM_ROWS, dtype=torch.int32, device=device)
    none = token_ids[0, :0]
    one = torch.ones(1, dtype=torch.int32, device=device)
    append_tokens(one, one + 2, none, none, none.long(), none.long(), token_ids, *counts)
    assert counts[1].tolist() == [0, 3, 0, 0, 0, 0, 0, 0]
    rows = torch.arange(3, dtype=torch.int32, device=device)
    tokens = torch.full((3,), 4, device=device)
    append_tokens(one, one, rows, one.repeat(3), one.repeat(3).long(), tokens, token_ids, *counts)
    assert token_ids[:3, 1].tolist() == [4, 4, 4]
