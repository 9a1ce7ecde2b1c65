"""Requests of every kind, and what transformers and the reference sampler make of them."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaForCausalLM

from octavo.kernels.sampling import sample_reference
from octavo.v1 import common_pb2, scheduling_pb2, step_pb2
from tests.worker.offline_engine import OfflineEngine
from tests.worker.reference_rules import reference_logits
from tests.worker.tiny_models import logits_of

VOCAB_SIZE = 96
STOP = 7
PENALTIES = st.sampled_from([0.0, 0.0, -1.5, 0.5, 2.0])


@st.composite
def sampling_params(draw: st.DrawFn) -> common_pb2.SamplingParams:
    params = common_pb2.SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.0, 0.8])),
        min_p=draw(st.sampled_from([0.0, 0.2])),
        top_k=draw(st.sampled_from([0, 9])),
        presence_penalty=draw(PENALTIES),
        frequency_penalty=draw(PENALTIES),
        repetition_penalty=draw(st.sampled_from([1.0, 0.7, 1.4])),
    )
    biased = draw(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=3))
    params.logit_bias_token_ids.extend(biased)
    params.logit_bias_values.extend(draw(st.sampled_from([-20, 2, 5])) for _ in biased)
    if draw(st.booleans()):
        params.allowed_token_ids.extend([*range(0, VOCAB_SIZE, 3), STOP])
    return params


@st.composite
def requests(draw: st.DrawFn) -> scheduling_pb2.SubmitRequest:
    n = draw(st.sampled_from([1, 1, 4]))
    # Few different beginnings, so that prefixes are shared.
    prompt = [draw(st.integers(0, 1))] * draw(st.integers(1, 9)) + draw(
        st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=12)
    )
    return scheduling_pb2.SubmitRequest(
        prompt_token_ids=prompt,
        n=n,
        seeds=[draw(st.integers(0, 1000)) + i for i in range(n)],
        sampling=draw(sampling_params()),
        max_tokens=8,
        min_tokens=draw(st.sampled_from([0, 3])),
        stop_token_ids=[STOP],
        num_logprobs=draw(st.sampled_from([None, 0, 3])),
        num_prompt_logprobs=draw(st.sampled_from([None, None, 0, 2])),
        cache_salt=draw(st.sampled_from([b"", b"salt"])),
        bad_words=[
            common_pb2.TokenIds(ids=ids)
            for ids in draw(st.sampled_from([[], [[3]], [[1, 6], [9]]]))
        ],
    )


def check_answers(
    model: LlamaForCausalLM,
    asked: Sequence[scheduling_pb2.SubmitRequest],
    engine: OfflineEngine,
) -> None:
    """Run the requests and compare every token and log-probability with the model's own."""
    for i, request in enumerate(asked):
        request.request_key = bytes([i]) * 16
    tokens = engine.generate(asked)
    for request in asked:
        for output, seed in enumerate(request.seeds):
            prompt, drawn = list(request.prompt_token_ids), tokens[request.request_key, output]
            logits = logits_of(model, prompt + drawn)
            check_output(request, seed, drawn, logits)
            if request.HasField("num_logprobs"):
                told = engine.logprobs[request.request_key, output]
                check_logprobs(told, request.num_logprobs, logits[len(prompt) - 1 : -1], drawn)
            if request.HasField("num_prompt_logprobs"):
                told = engine.prompt_logprobs[request.request_key]
                of_prompt = logits[: len(prompt) - 1]
                check_logprobs(told, request.num_prompt_logprobs, of_prompt, prompt[1:])
    engine.scheduler.check_invariants()


def check_output(
    request: scheduling_pb2.SubmitRequest, seed: int, output: list[int], logits: Tensor
) -> None:
    """Compare each token with what the rules in plain torch and the reference sampler draw.

    Args:
        logits: transformers' after each token of prompt and output. One forward for all of them: if
            every token is right after those before it, the whole output is.
    """
    prompt = list(request.prompt_token_ids)
    added = step_pb2.AddedRow(
        sampling=request.sampling,
        min_tokens=request.min_tokens,
        stop_token_ids=request.stop_token_ids,
        bad_words=request.bad_words,
    )
    positions = range(len(prompt), len(prompt) + len(output))
    rows = [
        reference_logits(logits[position - 1], added, prompt, output[: position - len(prompt)])
        for position in positions
    ]
    assert output == _drawn(torch.stack(rows), request.sampling, seed, positions)
    assert STOP not in output[:-1]
    assert output[-1] == STOP or len(output) == request.max_tokens


def check_logprobs(
    told: Sequence[common_pb2.PositionLogprobs], num_top: int, logits: Tensor, token_ids: list[int]
) -> None:
    """Compare with transformers' logits, [len(token_ids), vocab_size], up to rounding."""
    assert len(told) == len(token_ids)
    for position, row, token in zip(told, logits, token_ids, strict=True):
        reference = row.double().log_softmax(-1)
        ranked = reference.sort(descending=True).values
        assert position.chosen.token_id == token
        assert [top.rank for top in position.top] == list(range(1, num_top + 1))
        assert len({top.token_id for top in position.top}) == num_top
        for each in (position.chosen, *position.top):
            assert each.logprob == pytest.approx(float(reference[each.token_id]), abs=1e-4)
            assert each.logprob == pytest.approx(float(ranked[each.rank - 1]), abs=1e-4)


def _drawn(
    logits: Tensor, sampling: common_pb2.SamplingParams, seed: int, positions: Sequence[int]
) -> list[int]:
    """Return the token of each position; logits: [len(positions), vocab_size]."""
    num_rows = len(positions)
    tokens: list[int] = sample_reference(
        logits,
        torch.full((num_rows,), sampling.temperature),
        torch.full((num_rows,), sampling.top_k, dtype=torch.int32),
        torch.ones(num_rows),
        torch.full((num_rows,), sampling.min_p),
        torch.full((num_rows,), seed),
        torch.tensor(positions),
    ).tolist()
    return tokens
