"""Greedy and seeded output is the same, to the bit, however the cluster is run.

The reference for greedy is transformers' `generate`, in float32, on the same weights. Every second
request asks for log-probabilities: where they are equal to the bit, so is all that they come from,
which a few tokens tell better than many tokens that are merely the same.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.end_to_end.cluster import Cluster, running_cluster
from tests.end_to_end.prompts import PROMPTS

pytestmark = pytest.mark.slow

# Of each request, its outputs.
Answers = list[list[dict[str, Any]]]

# Two ends of a block in every output.
MAX_TOKENS = 32
SEEDED = {"prompt": "My favourite story begins", "temperature": 0.8, "seed": 42}

REQUESTS: list[dict[str, Any]] = [
    *(
        {"prompt": prompt, "temperature": 0.0, "logprobs": 0 if number % 2 else None}
        for number, prompt in enumerate(PROMPTS)
    ),
    SEEDED,
]
# Of either kind, short and long; and the seeded one.
ALONE = [*range(0, len(PROMPTS), 5), len(PROMPTS)]

# Enough for the longest request and a few more: far fewer than 33 requests want at once.
FEW_BLOCKS = ["--num-gpu-blocks-override", "64"]
FLOAT32 = ["--dtype", "float32"]


@pytest.fixture(scope="module")
def expected(demo_in_transformers: Path) -> list[list[int]]:
    """transformers' greedy tokens for each prompt, end token included."""
    return greedy_by_transformers(demo_in_transformers, PROMPTS)


def greedy_by_transformers(path: Path, prompts: Sequence[str]) -> list[list[int]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    inputs = tokenizer(list(prompts), return_tensors="pt", padding=True)
    with torch.inference_mode():
        outputs = model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
    return [
        cut_after(row.tolist(), tokenizer.eos_token_id)
        for row in outputs[:, inputs.input_ids.shape[1] :]
    ]


def cut_after(token_ids: list[int], end: int) -> list[int]:
    return token_ids[: token_ids.index(end) + 1] if end in token_ids else token_ids


async def complete(client: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "demo", "max_tokens": MAX_TOKENS, "return_token_ids": True} | fields
    response = await client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    choices: list[dict[str, Any]] = response.json()["choices"]
    return choices


async def run_at_once(cluster: Cluster, **fields: Any) -> Answers:
    """Send the greedy prompts and the seeded request together, with `fields` in each."""
    async with httpx.AsyncClient(base_url=cluster.base_url, timeout=300) as client:
        return await asyncio.gather(*(complete(client, **each, **fields) for each in REQUESTS))


async def run_alone(cluster: Cluster) -> dict[int, list[dict[str, Any]]]:
    """Send some of the requests, short and long, each when the one before has been answered."""
    async with httpx.AsyncClient(base_url=cluster.base_url, timeout=300) as client:
        return {number: await complete(client, **REQUESTS[number]) for number in ALONE}


@dataclass(frozen=True)
class Baseline:
    """A cluster with its defaults, and what it answered to all requests at once when it was new."""

    cluster: Cluster
    answers: Answers


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baseline]:
    log_path = tmp_path_factory.mktemp("baseline") / "serve.log"
    with running_cluster(log_path, "demo", FLOAT32) as cluster:
        yield Baseline(cluster, asyncio.run(run_at_once(cluster)))


def assert_same(actual: dict[int, list[dict[str, Any]]], expected: Answers) -> None:
    """Each output of a request has tokens, text and log-probabilities of the one expected.

    Of the seeded request, the last one, only the first output: the others draw from other seeds.
    """
    for number, choices in actual.items():
        (wanted,) = expected[number]
        for choice in choices[:1] if number == len(PROMPTS) else choices:
            for part in ("token_ids", "text", "logprobs"):
                assert choice[part] == wanted[part], f"{part} of request {number}"


def test_greedy_tokens_are_those_of_transformers(
    baseline: Baseline, expected: list[list[int]]
) -> None:
    greedy = [choices[0]["token_ids"] for choices in baseline.answers[: len(PROMPTS)]]
    assert greedy == expected
    told = [choices[0]["logprobs"] is not None for choices in baseline.answers]
    assert sum(told) == len(PROMPTS) // 2


def test_a_request_alone_is_answered_as_among_others(baseline: Baseline) -> None:
    assert_same(asyncio.run(run_alone(baseline.cluster)), baseline.answers)


def test_two_outputs_of_one_prompt(baseline: Baseline) -> None:
    # The salt hides what the cache has of these prompts: the first output computes them anew.
    pairs = asyncio.run(run_at_once(baseline.cluster, n=2, cache_salt="pairs"))
    assert_same(dict(enumerate(pairs)), baseline.answers)
    first, second = pairs[-1]
    assert first["text"] != second["text"], (
        "the outputs of a seeded request draw from different seeds"
    )


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--no-enable-prefix-caching"], id="no-prefix-caching"),
        pytest.param(["--max-num-batched-tokens", "32"], id="chunks-of-32"),
        pytest.param(["--no-async-scheduling"], id="no-overlap"),
    ],
)
def test_tokens_do_not_depend_on_how_the_cluster_runs(
    baseline: Baseline, tmp_path: Path, flags: list[str]
) -> None:
    with running_cluster(tmp_path / "serve.log", "demo", [*FLOAT32, *flags]) as cluster:
        answers = asyncio.run(run_at_once(cluster))
    assert_same(dict(enumerate(answers)), baseline.answers)


def test_tokens_survive_preemption(baseline: Baseline, tmp_path: Path) -> None:
    with running_cluster(tmp_path / "serve.log", "demo", [*FLOAT32, *FEW_BLOCKS]) as cluster:
        answers = asyncio.run(run_at_once(cluster))
        assert cluster.metric("octavo_scheduler_preemptions_total") > 0
    assert_same(dict(enumerate(answers)), baseline.answers)
