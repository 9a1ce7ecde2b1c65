"""Greedy and seeded output is the same, token for token, however the cluster is run.

The reference for greedy is transformers' `generate`, in float32, on the same weights.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.end_to_end.cluster import Cluster, running_cluster
from tests.end_to_end.prompts import PROMPTS

pytestmark = pytest.mark.slow

MAX_TOKENS = 64
SEEDED = {"prompt": "My favourite story begins", "temperature": 0.8, "seed": 42}

# Enough for the longest request and a few more: far fewer than 33 requests want at once.
FEW_BLOCKS = ["--num-gpu-blocks-override", "64"]


@pytest.fixture(scope="module")
def expected(demo_model: Path) -> list[list[int]]:
    """transformers' greedy tokens for each prompt, end token included."""
    return greedy_by_transformers(demo_model, PROMPTS)


def greedy_by_transformers(model_path: Path, prompts: Sequence[str]) -> list[list[int]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": model_path.parent, "gguf_file": model_path.name}
    tokenizer = AutoTokenizer.from_pretrained(**source, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
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


async def run_all(
    cluster: Cluster, *, n: int = 1, at_once: bool = True
) -> list[list[dict[str, Any]]]:
    """Send the greedy prompts and the seeded request, at once or one after the other."""
    requests = [{"prompt": prompt, "temperature": 0.0} for prompt in PROMPTS] + [SEEDED]
    async with httpx.AsyncClient(base_url=cluster.base_url, timeout=300) as client:
        calls = [complete(client, n=n, **request) for request in requests]
        if at_once:
            return list(await asyncio.gather(*calls))
        return [await call for call in calls]


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """Every request at once on a cluster with its defaults; then each alone on the same cluster."""
    log_path = tmp_path_factory.mktemp("baseline") / "serve.log"
    with running_cluster(log_path, "demo", ["--dtype", "float32"]) as cluster:
        at_once = asyncio.run(run_all(cluster))
        alone = asyncio.run(run_all(cluster, at_once=False))
    assert_same(alone, at_once)
    return at_once


def assert_same(actual: list[list[dict[str, Any]]], expected: list[list[dict[str, Any]]]) -> None:
    """Every output of `actual` has the tokens and the text of the first output of `expected`.

    Of the seeded request, the last one, only the first output: the others draw from other seeds.
    """
    for request, (choices, (wanted, *_)) in enumerate(zip(actual, expected, strict=True)):
        for choice in choices[:1] if request == len(PROMPTS) else choices:
            assert choice["token_ids"] == wanted["token_ids"], f"request {request}"
            assert choice["text"] == wanted["text"], f"request {request}"


def test_greedy_tokens_are_those_of_transformers(
    baseline: list[list[dict[str, Any]]], expected: list[list[int]]
) -> None:
    greedy = [choices[0]["token_ids"] for choices in baseline[: len(PROMPTS)]]
    assert greedy == expected


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--no-enable-prefix-caching"], id="no-prefix-caching"),
        pytest.param(["--max-num-batched-tokens", "32"], id="chunks-of-32"),
        pytest.param(["--no-async-scheduling"], id="no-overlap"),
    ],
)
def test_tokens_do_not_depend_on_how_the_cluster_runs(
    baseline: list[list[dict[str, Any]]], tmp_path: Path, flags: list[str]
) -> None:
    with running_cluster(tmp_path / "serve.log", "demo", ["--dtype", "float32", *flags]) as cluster:
        assert_same(asyncio.run(run_all(cluster)), baseline)


def test_tokens_survive_preemption(baseline: list[list[dict[str, Any]]], tmp_path: Path) -> None:
    with running_cluster(
        tmp_path / "serve.log", "demo", ["--dtype", "float32", *FEW_BLOCKS]
    ) as cluster:
        assert_same(asyncio.run(run_all(cluster)), baseline)
        assert cluster.metric("octavo_scheduler_preemptions_total") > 0


def test_two_outputs_of_one_prompt(baseline: list[list[dict[str, Any]]], tmp_path: Path) -> None:
    with running_cluster(tmp_path / "serve.log", "demo", ["--dtype", "float32"]) as cluster:
        pairs = asyncio.run(run_all(cluster, n=2))
    assert_same(pairs, baseline)
    first, second = pairs[-1]
    assert first["text"] != second["text"], (
        "the outputs of a seeded request draw from different seeds"
    )
