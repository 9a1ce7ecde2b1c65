"""octavo.kernels.penalties: the columns of rows say what the worker's rules say."""

import math

import numpy as np
import pytest
import torch

from octavo.kernels.penalties import apply_penalties
from tests.kernels.penalty_rows import random_rows, worker_rules


@pytest.mark.parametrize("vocab_size", [9, 32, 100])
def test_logits_are_those_of_the_worker_s_rules(vocab_size: int) -> None:
    penalties, known = random_rows(60, vocab_size)
    logits = 3 * torch.randn(60, vocab_size)
    expected = logits.clone()
    for row, numbers in enumerate(expected.numpy()):
        token_ids = known.token_ids[row, : known.num_tokens[row]].numpy().astype(np.int32)
        worker_rules(penalties, known, row, vocab_size).apply(numbers, token_ids)
    everything = torch.arange(60, dtype=torch.int32)
    apply_penalties(logits, everything, everything, penalties, known)
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-5)


def test_rows_and_places_are_apart() -> None:
    penalties, known = random_rows(4, 50)
    logits = torch.randn(3, 50)
    expected, before = logits[[2]], logits.clone()
    first = torch.tensor([0], dtype=torch.int32)
    apply_penalties(expected, first, first + 3, penalties, known)
    apply_penalties(logits, first + 2, first + 3, penalties, known)
    assert torch.equal(logits[2], expected[0])
    assert torch.equal(logits[:2], before[:2])


def test_what_is_no_number_is_not_hidden() -> None:
    penalties, known = random_rows(40, 20)
    penalties.allowed.zero_()
    logits = torch.randn(40, 20)
    logits[::2, 3], logits[1::2, 4] = math.nan, math.inf
    everything = torch.arange(40, dtype=torch.int32)
    apply_penalties(logits, everything, everything, penalties, known)
    assert not logits.amax(dim=1).isfinite().any()
