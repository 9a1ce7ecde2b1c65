"""Penalties on the GPU: the logits are those of the reference."""

import math
from dataclasses import fields
from typing import TypeVar

import pytest
import torch

from octavo.kernels.penalties import (
    KnownTokens,
    Penalties,
    apply_penalties,
    apply_penalties_reference,
)
from tests.kernels.penalty_rows import random_rows

Columns = TypeVar("Columns", Penalties, KnownTokens)


def moved(columns: Columns, device: str) -> Columns:
    values = {each.name: getattr(columns, each.name).to(device) for each in fields(columns)}
    return type(columns)(**values)


@pytest.mark.parametrize("vocab_size", [9, 100, 2100])
def test_logits_are_those_of_the_reference(device: str, vocab_size: int) -> None:
    """Some rows have none, and some of the logits are no numbers."""
    num_rows, num_places = 30, 40
    penalties, known = random_rows(num_rows, vocab_size)
    logits = 3 * torch.randn(num_places, vocab_size)
    logits[3, 2], logits[4, 7], logits[5], logits[6, :4] = math.nan, math.inf, -math.inf, -math.inf
    places = torch.randperm(num_places)[:20].int()
    rows = torch.randperm(num_rows)[:20].int()
    expected = logits.clone()
    apply_penalties_reference(expected, places, rows, penalties, known)
    actual = logits.to(device)
    apply_penalties(
        actual, places.to(device), rows.to(device), moved(penalties, device), moved(known, device)
    )
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-6, atol=1e-5, equal_nan=True)


def test_tokens_are_counted_over_all_of_a_long_row(device: str) -> None:
    penalties, _ = random_rows(1, 64)
    known = KnownTokens(
        token_ids=torch.randint(60, (1, 5000), dtype=torch.int32),
        num_prompt_tokens=torch.tensor([2500], dtype=torch.int32),
        num_tokens=torch.tensor([4999], dtype=torch.int32),
    )
    penalties.frequency_penalty.fill_(0.25)
    logits, first = torch.zeros(1, 64), torch.zeros(1, dtype=torch.int32)
    expected = logits.clone()
    apply_penalties_reference(expected, first, first, penalties, known)
    actual, first = logits.to(device), first.to(device)
    apply_penalties(actual, first, first, moved(penalties, device), moved(known, device))
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-6, atol=1e-5)


def test_without_rows_nothing_changes(device: str) -> None:
    penalties, known = random_rows(2, 30)
    logits = torch.randn(2, 30, device=device)
    before, none = logits.clone(), torch.zeros(0, dtype=torch.int32, device=device)
    apply_penalties(logits, none, none, moved(penalties, device), moved(known, device))
    assert torch.equal(logits, before)
