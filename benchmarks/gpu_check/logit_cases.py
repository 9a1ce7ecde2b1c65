"""What is done to logits beside sampling from them: penalties before, log-probabilities of them."""

from collections.abc import Iterator

import torch
from torch import Tensor

from octavo.kernels.logprobs import logprobs, logprobs_reference
from octavo.kernels.penalties import (
    KnownTokens,
    Penalties,
    apply_penalties,
    apply_penalties_reference,
)

from .kernel_case import Inputs, KernelCase, all_bytes, at_once


def logit_cases(vocab_size: int, num_rows: int) -> Iterator[KernelCase]:
    """Yield penalties of every kind for each row, and the log-probabilities of 20 tokens."""
    yield penalties_case(vocab_size, num_rows, num_tokens=2048)
    yield logprobs_case(vocab_size, num_rows, num_top=20)


def penalties_case(vocab_size: int, num_rows: int, num_tokens: int) -> KernelCase:
    """Half of a row's tokens are its output; none is banned, so that every logit has an error."""

    def make(device: str, _: torch.dtype) -> Inputs:
        def tokens(*shape: int) -> Tensor:
            return torch.randint(vocab_size, shape, dtype=torch.int32, device=device)

        def column(value: float) -> Tensor:
            return torch.full((num_rows,), value, device=device)

        return [
            3 * torch.randn(num_rows, vocab_size, device=device),
            torch.arange(num_rows, dtype=torch.int32, device=device),
            torch.full((num_rows, -(-vocab_size // 32)), -1, dtype=torch.int32, device=device),
            tokens(num_rows, 4, 5),
            column(0).int(),
            tokens(num_rows, 2),
            torch.arange(8, dtype=torch.int32, device=device).repeat(num_rows, 1),
            torch.randn(num_rows, 8, device=device),
            *(column(value) for value in (1.1, 0.2, 0.3)),
            tokens(num_rows, num_tokens),
            *(column(count).int() for count in (num_tokens // 2, num_tokens)),
        ]

    def run(logits: Tensor, rows: Tensor, *columns: Tensor) -> Tensor:
        apply_penalties(logits, rows, rows, *_rules(columns))
        return logits

    def reference(logits: Tensor, rows: Tensor, *columns: Tensor) -> Tensor:
        apply_penalties_reference(logits, rows, rows, *_rules(columns))
        return logits

    return KernelCase(
        "penalties",
        f"{num_rows} x {vocab_size}, {num_tokens} tokens",
        make,
        at_once(run),
        reference,
        lambda inputs: all_bytes([inputs[0], inputs[2], inputs[11]], inputs[0]),
        dtypes=(torch.float32,),
    )


def logprobs_case(vocab_size: int, num_rows: int, num_top: int) -> KernelCase:
    def make(device: str, _: torch.dtype) -> Inputs:
        logits = 3 * torch.randn(num_rows, vocab_size, device=device)
        return [logits, torch.randint(vocab_size, (num_rows,), device=device)]

    return KernelCase(
        "logprobs",
        f"{num_rows} x {vocab_size}, {num_top} of the most probable",
        make,
        at_once(lambda logits, token_ids: logprobs(logits, token_ids, num_top)),
        lambda logits, token_ids: logprobs_reference(logits, token_ids, num_top),
        lambda inputs: all_bytes(inputs),
        dtypes=(torch.float32,),
    )


def _rules(columns: tuple[Tensor, ...]) -> tuple[Penalties, KnownTokens]:
    allowed, bad_words, min_tokens, stops, bias_ids, bias_values = columns[:6]
    repetition, frequency, presence, token_ids, num_prompt_tokens, num_tokens = columns[6:]
    penalties = Penalties(
        allowed=allowed,
        bad_words=bad_words,
        min_tokens=min_tokens,
        stop_token_ids=stops,
        bias_token_ids=bias_ids,
        bias_values=bias_values,
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        presence_penalty=presence,
    )
    return penalties, KnownTokens(
        token_ids=token_ids, num_prompt_tokens=num_prompt_tokens, num_tokens=num_tokens
    )
