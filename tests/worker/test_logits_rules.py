"""octavo.worker.logits_rules: every rule against plain torch, and what a plan may not say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.v1 import common_pb2, step_pb2
from octavo.worker.block_tables import BadPlan
from octavo.worker.logits_rules import rules_of
from tests.worker.reference_rules import reference_logits

VOCAB_SIZE = 12
TOKENS = st.integers(0, VOCAB_SIZE - 1)
PENALTIES = st.sampled_from([0.0, -2.0, -0.3, 0.7, 2.0])


@st.composite
def sampling_params(draw: st.DrawFn) -> common_pb2.SamplingParams:
    """Any of the rules, each left out half of the time."""
    params = common_pb2.SamplingParams(
        presence_penalty=draw(PENALTIES), frequency_penalty=draw(PENALTIES)
    )
    if draw(st.booleans()):
        params.repetition_penalty = draw(st.sampled_from([0.5, 1.0, 1.3, 2.0]))
    biased = draw(st.lists(TOKENS, max_size=4))
    params.logit_bias_token_ids.extend(biased)
    params.logit_bias_values.extend(draw(st.sampled_from([-100, -1.5, 3, 100])) for _ in biased)
    if draw(st.booleans()):
        params.allowed_token_ids.extend(draw(st.lists(TOKENS, min_size=3, max_size=6)))
    return params


@st.composite
def added_rows(draw: st.DrawFn) -> step_pb2.AddedRow:
    return step_pb2.AddedRow(
        num_prompt_tokens=draw(st.integers(1, 4)),
        sampling=draw(sampling_params()),
        min_tokens=draw(st.integers(0, 5)),
        stop_token_ids=draw(st.lists(TOKENS, max_size=2)),
        bad_words=[
            common_pb2.TokenIds(ids=ids)
            for ids in draw(st.lists(st.lists(TOKENS, min_size=1, max_size=3), max_size=4))
        ],
    )


@settings(max_examples=400, deadline=None)
@given(
    added=added_rows(),
    tokens=st.lists(TOKENS, min_size=4, max_size=12),
    seed=st.integers(0, 1000),
)
def test_logits_are_those_of_plain_torch(
    added: step_pb2.AddedRow, tokens: list[int], seed: int
) -> None:
    logits = 3 * torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
    count = added.num_prompt_tokens
    expected = reference_logits(logits, added, tokens[:count], tokens[count:])
    rules = rules_of(added, VOCAB_SIZE)
    if rules is not None:
        rules.apply(logits.numpy(), np.array(tokens, np.int32))
    torch.testing.assert_close(logits, expected, rtol=1e-6, atol=1e-5)


def test_a_row_without_rules_has_none() -> None:
    plain = step_pb2.AddedRow(num_prompt_tokens=1, stop_token_ids=[1])
    plain.sampling.temperature = 0.5
    plain.sampling.min_p = 0.1
    plain.sampling.repetition_penalty = 1.0
    assert rules_of(plain, VOCAB_SIZE) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.sampling.allowed_token_ids.append(12), "token 12; there are 12"),
        (lambda a: a.bad_words.add(ids=[1, 12]), "token 12"),
        (lambda a: a.bad_words.add(), "empty bad word"),
        (lambda a: a.sampling.logit_bias_token_ids.append(1), "not as many values"),
        (lambda a: setattr(a.sampling, "presence_penalty", float("nan")), "no number in range"),
        (lambda a: setattr(a.sampling, "repetition_penalty", 0), "no number in range"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(
    change: Callable[[step_pb2.AddedRow], Any], words: str
) -> None:
    added = step_pb2.AddedRow(num_prompt_tokens=1)
    change(added)
    with pytest.raises(BadPlan, match=words):
        rules_of(added, VOCAB_SIZE)
