"""Log-probabilities on the GPU: those of the reference."""

import math

import pytest
import torch

from octavo.kernels.logprobs import logprobs, logprobs_reference


@pytest.mark.parametrize("num_top", [0, 1, 5, 20])
@pytest.mark.parametrize("vocab_size", [20, 129, 4500])
def test_numbers_are_those_of_the_reference(device: str, vocab_size: int, num_top: int) -> None:
    """Some of the logits are equal, some minus infinity, all of a chunk of a row as well."""
    logits = 4 * torch.randn(6, vocab_size, device=device)
    logits[1] = logits[1].round()
    logits[2] = 0
    logits[3, 2:], logits[4, :2100] = -math.inf, -math.inf
    logits[4, 15] = 1.0
    token_ids = torch.randint(vocab_size, (6,), device=device)
    token_ids[0] = logits[0].argmin()
    actual = logprobs(logits, token_ids, num_top)
    expected = logprobs_reference(logits, token_ids, num_top)
    assert torch.equal(actual.top_ids, expected.top_ids)
    assert torch.equal(actual.ranks, expected.ranks)
    torch.testing.assert_close(actual.chosen, expected.chosen, rtol=1e-6, atol=3e-6)
    torch.testing.assert_close(actual.top, expected.top, rtol=1e-6, atol=3e-6)


# The interpreter's, of infinity less infinity, which is meant to be NaN.
@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_row_without_a_largest_number_has_none(device: str, number: float) -> None:
    logits = torch.full((2, 2500), number, device=device)
    logits[1] = torch.randn(2500)
    if number != -math.inf:
        logits[0, :2400] = 0
    token_ids = torch.tensor([3, -1], device=device)
    assert logprobs(logits, token_ids, 3).chosen.isnan().tolist() == [True, False]


def test_no_rows_have_no_numbers(device: str) -> None:
    nothing = torch.zeros(0, 10, device=device)
    result = logprobs(nothing, torch.zeros(0, dtype=torch.int64, device=device), 2)
    assert result.chosen.shape == result.ranks.shape == (0,)
    assert result.top.shape == result.top_ids.shape == (0, 2)
