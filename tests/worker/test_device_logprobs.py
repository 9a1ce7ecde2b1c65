"""Log-probabilities of a device against those of the host, over ties, NaN and infinities."""

import numpy as np
import pytest
import torch

from octavo.kernels.logprobs import logprobs
from octavo.worker.device_logprobs import PromptLogprobs, position_message
from octavo.worker.logprobs import PromptRun, position_logprobs


def test_they_are_those_of_the_host_where_logits_tie_too() -> None:
    logits = torch.randn(6, 40).mul(2).round()
    logits[1, 5:20] = -torch.inf
    chosen = torch.tensor([0, 7, 39, 12, 12, 3])
    of_all = logprobs(logits, chosen, 9)
    for i, num_top in enumerate([0, 9, 1, 4, 9, 2]):
        told = position_message(of_all, i, int(chosen[i]), num_top)
        with np.errstate(divide="ignore"):
            expected = position_logprobs(logits[i].numpy(), int(chosen[i]), num_top)
        assert [t.token_id for t in told.top] == [t.token_id for t in expected.top]
        for mine, other in zip(
            [told.chosen, *told.top], [expected.chosen, *expected.top], strict=True
        ):
            assert (mine.token_id, mine.rank) == (other.token_id, other.rank)
            assert mine.logprob == pytest.approx(other.logprob, abs=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_run_with_no_numbers_is_not_told(bad: float) -> None:
    logits = torch.randn(3, 10)
    run, token_ids = PromptRun(4, 1, 3, 0), np.array([1, 2, 3], np.int32)

    def told() -> bool:
        parts = [logprobs(logits, torch.from_numpy(token_ids).long(), 2)]
        return PromptLogprobs(run, token_ids, 2, parts).message() is not None

    assert told()
    logits[1, 7] = bad
    assert not told()
