"""Runs of any length land where they belong, and nothing between them is touched."""

import torch

from octavo.kernels.write_runs import write_runs, write_runs_reference


def test_runs_are_written_and_what_is_between_them_stays(device: str) -> None:
    lengths = torch.tensor([1, 300, 0, 7, 256, 1, 1025], dtype=torch.int32)
    # Two numbers apart from one another, and the last in front.
    ends = (lengths.long() + 2).cumsum(0)
    destinations = (ends - lengths).roll(1)
    lengths = lengths.roll(1)
    sources = (lengths.cumsum(0) - lengths).int().flip(0)
    values = torch.randint(1, 2**31 - 1, (3000,), dtype=torch.int32)
    memory = torch.full((4000,), -7, dtype=torch.int32)
    expected = memory.clone()
    write_runs_reference(expected, destinations, lengths, sources, values)
    actual = memory.to(device)
    write_runs(actual, *(each.to(device) for each in (destinations, lengths, sources, values)))
    assert torch.equal(actual.cpu(), expected)
    assert int((expected == -7).sum()) == 4000 - int(lengths.sum())


def test_no_runs_are_nothing_to_do(device: str) -> None:
    memory = torch.full((5,), 3, dtype=torch.int32, device=device)
    none = memory[:0]
    write_runs(memory, none.long(), none, none, none)
    assert (memory == 3).all()
