"""octavo.kernels.logprobs: what it tells of a row is what the worker tells."""

import torch

from octavo.kernels.logprobs import logprobs
from octavo.worker.logprobs import position_logprobs


def test_numbers_are_those_of_the_worker() -> None:
    logits = torch.randn(50, 30).round(decimals=1)
    token_ids = torch.randint(30, (50,))
    result = logprobs(logits, token_ids, 4)
    for row, token_id in enumerate(token_ids.tolist()):
        expected = position_logprobs(logits[row].numpy(), token_id, 4)
        assert int(result.ranks[row]) == expected.chosen.rank
        assert result.top_ids[row].tolist() == [token.token_id for token in expected.top]
        told = torch.tensor([expected.chosen.logprob, *(token.logprob for token in expected.top)])
        computed = torch.cat([result.chosen[[row]], result.top[row]])
        torch.testing.assert_close(computed, told, rtol=1e-6, atol=1e-6)
