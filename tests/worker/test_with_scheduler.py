"""Scheduler and model in one process: the tokens are transformers', however they are planned."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from octavo.startup import StartupReport
from octavo.v1 import common_pb2, scheduling_pb2
from octavo.worker.loading import load_model_runner
from tests.worker.offline_engine import OfflineEngine
from tests.worker.runners import settings_for
from tests.worker.tiny_models import greedy_tokens, save_tiny_llama

NUM_PROMPTS = 12
COUNT = 16
LENGTHS = (1, 4, 5, 8, 13, 16, 17, 21, 24, 29, 31, 40)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    path = tmp_path_factory.mktemp("tiny")
    return path, save_tiny_llama(path)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Prompts of many lengths; each second one begins as the one before it."""
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randint(0, 96, (n,), generator=generator).tolist() for n in LENGTHS]
    return [
        (drawn[i - 1] + drawn[i])[: len(drawn[i])] if i % 2 else drawn[i]
        for i in range(NUM_PROMPTS)
    ]


@pytest.fixture(scope="module")
def expected(saved: tuple[Path, LlamaForCausalLM], prompts: list[list[int]]) -> list[list[int]]:
    return [greedy_tokens(saved[1], prompt, COUNT) for prompt in prompts]


def requests(
    prompts: Sequence[list[int]], *, n: int = 1, temperature: float = 0.0
) -> list[scheduling_pb2.SubmitRequest]:
    return [
        scheduling_pb2.SubmitRequest(
            request_key=bytes([i]) * 16,
            prompt_token_ids=prompt,
            n=n,
            seeds=[1000 * i + output for output in range(n)],
            sampling=common_pb2.SamplingParams(temperature=temperature),
            max_tokens=COUNT,
        )
        for i, prompt in enumerate(prompts)
    ]


def engine(path: Path, *, num_blocks: int = 256, **options: Any) -> OfflineEngine:
    runner = load_model_runner(settings_for(path, num_blocks=num_blocks), StartupReport(None))
    return OfflineEngine(runner, **options)


PLANNED: dict[str, dict[str, Any]] = {
    "at once": {},
    "without prefix cache": {"enable_prefix_caching": False},
    "seven tokens a step": {"max_num_batched_tokens": 7},
    "two plans ahead": {"plans_ahead": 2},
    # The longest needs 14 blocks of 4; all together, 90.
    "in few blocks": {"num_blocks": 18},
    "in few blocks, two plans ahead": {"num_blocks": 18, "plans_ahead": 2},
}


@pytest.mark.parametrize("options", PLANNED.values(), ids=PLANNED.keys())
def test_greedy_tokens_are_transformers_however_they_are_planned(
    options: dict[str, Any],
    saved: tuple[Path, LlamaForCausalLM],
    prompts: list[list[int]],
    expected: list[list[int]],
) -> None:
    running = engine(saved[0], **options)
    tokens = running.generate(requests(prompts))
    assert [tokens[bytes([i]) * 16, 0] for i in range(NUM_PROMPTS)] == expected
    running.scheduler.check_invariants()
    assert (running.scheduler.stats.num_preemptions > 0) == ("num_blocks" in options)


def test_seeded_outputs_are_the_same_alone_together_and_in_few_blocks(
    saved: tuple[Path, LlamaForCausalLM], prompts: list[list[int]]
) -> None:
    asked = requests(prompts, n=3, temperature=0.8)
    together = engine(saved[0], plans_ahead=2).generate(asked)
    assert len(together) == 3 * NUM_PROMPTS
    assert len({tuple(tokens) for tokens in together.values()}) == 3 * NUM_PROMPTS
    crowded = engine(saved[0], num_blocks=20, max_num_batched_tokens=16)
    assert crowded.generate(asked) == together
    assert crowded.scheduler.stats.num_preemptions
    alone = engine(saved[0], enable_prefix_caching=False)
    for request in asked:
        del request.seeds[1:]
        request.n = 1
        key = request.request_key
        assert alone.generate([request]) == {(key, 0): together[key, 0]}
