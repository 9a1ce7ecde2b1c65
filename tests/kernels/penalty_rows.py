"""Rows with penalties of every kind, random, and what the worker's rules would be for them."""

import torch
from torch import Tensor

from octavo.kernels.penalties import KnownTokens, Penalties
from octavo.worker.logits_rules import LogitsRules

_MAX_TOKENS = 20


def random_rows(num_rows: int, vocab_size: int) -> tuple[Penalties, KnownTokens]:
    """Half of the rows leave a penalty out; what is behind the tokens of a row is poison."""

    def some(values: Tensor, neutral: float) -> Tensor:
        return values.where(torch.rand(num_rows) < 0.5, neutral)

    token_ids = torch.randint(min(vocab_size, 9), (num_rows, _MAX_TOKENS), dtype=torch.int32)
    num_tokens = torch.randint(1, _MAX_TOKENS + 1, (num_rows,), dtype=torch.int32)
    token_ids[torch.arange(_MAX_TOKENS) >= num_tokens[:, None]] = -5
    known = KnownTokens(
        token_ids=token_ids,
        num_prompt_tokens=(num_tokens * torch.rand(num_rows)).ceil().int(),
        num_tokens=num_tokens,
    )
    num_words = -(-vocab_size // 32)
    masks = torch.randint(-(2**31), 2**31, (num_rows, num_words), dtype=torch.int32)
    penalties = Penalties(
        allowed=masks.where(torch.rand(num_rows, 1) < 0.5, -1),
        bad_words=_bad_words(known),
        min_tokens=torch.randint(0, _MAX_TOKENS, (num_rows,), dtype=torch.int32),
        stop_token_ids=torch.randint(-1, vocab_size, (num_rows, 3), dtype=torch.int32),
        bias_token_ids=_distinct_tokens(num_rows, vocab_size),
        bias_values=10 * torch.randn(num_rows, 5),
        repetition_penalty=some(0.5 + torch.rand(num_rows), 1.0),
        frequency_penalty=some(torch.randn(num_rows), 0.0),
        presence_penalty=some(torch.randn(num_rows), 0.0),
    )
    return penalties, known


def worker_rules(
    penalties: Penalties, known: KnownTokens, row: int, vocab_size: int
) -> LogitsRules:
    """What the worker applies for a row, on the CPU."""
    words = penalties.allowed[row].tolist()
    allowed = [t for t in range(vocab_size) if words[t // 32] >> t % 32 & 1]
    is_bias = penalties.bias_token_ids[row] >= 0
    stops = penalties.stop_token_ids[row]
    bad_words = (word[word >= 0].long().numpy() for word in penalties.bad_words[row])
    return LogitsRules(
        num_prompt_tokens=int(known.num_prompt_tokens[row]),
        allowed_token_ids=torch.tensor(allowed).numpy(),
        bad_words=tuple(word for word in bad_words if len(word)),
        min_tokens=int(penalties.min_tokens[row]),
        stop_token_ids=stops[stops >= 0].long().numpy(),
        bias_token_ids=penalties.bias_token_ids[row][is_bias].long().numpy(),
        bias_values=penalties.bias_values[row][is_bias].numpy(),
        repetition_penalty=float(penalties.repetition_penalty[row]),
        frequency_penalty=float(penalties.frequency_penalty[row]),
        presence_penalty=float(penalties.presence_penalty[row]),
    )


def _bad_words(known: KnownTokens) -> Tensor:
    """Of each row: a word that its output may be at the end of, one that it is not, and none."""
    words = torch.full((len(known.token_ids), 3, 4), -1, dtype=torch.int32)
    for row, token_ids in enumerate(known.token_ids):
        length = 1 + row % 3
        end = token_ids[: known.num_tokens[row]][-length:]
        words[row, 0, 3 - len(end) : 3] = end
        words[row, 0, 3] = 1
        words[row, 1, 2:] = torch.tensor([8, 2])
    return words


def _distinct_tokens(num_rows: int, vocab_size: int) -> Tensor:
    tokens = torch.stack([torch.randperm(max(vocab_size, 5))[:5] for _ in range(num_rows)])
    return tokens.where((torch.rand(num_rows, 5) < 0.6) & (tokens < vocab_size), -1).int()
