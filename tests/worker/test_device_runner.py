"""Steps on a device: nothing waits for it, and what it brings is told when it has come."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from octavo.v1 import common_pb2, step_pb2
from octavo.worker.device_stream import Fetch, stream_of
from octavo.worker.rows import BadPlan
from octavo.worker.sampler import NO_NUMBERS, NO_TOKEN_LEFT
from tests.worker.plan_driver import PlanDriver
from tests.worker.runners import BLOCK_SIZE, poisoned_device_runner
from tests.worker.tiny_models import greedy_tokens, save_tiny_llama

PROMPT = [5, 17, 80, 3, 3, 41, 9, 66, 2, 90, 11, 30, 7]
OTHER = [70, 1, 22, 48, 6, 13, 35]
COUNT = 8


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    path = tmp_path_factory.mktemp("tiny")
    return path, save_tiny_llama(path)


@pytest.fixture
def driver(saved: tuple[Path, LlamaForCausalLM]) -> PlanDriver:
    return PlanDriver(poisoned_device_runner(saved[0]), BLOCK_SIZE)


@pytest.fixture(scope="module")
def expected(saved: tuple[Path, LlamaForCausalLM]) -> list[int]:
    return greedy_tokens(saved[1], PROMPT, COUNT)


@pytest.mark.parametrize("chunk", [1, 5, 13], ids=lambda chunk: f"chunks of {chunk}")
def test_greedy_tokens_are_transformers_whatever_the_chunk(
    driver: PlanDriver, expected: list[int], chunk: int
) -> None:
    assert driver.generate(3, PROMPT, COUNT, chunk) == expected


def test_a_row_whose_logits_are_nan_fails_alone(driver: PlanDriver, expected: list[int]) -> None:
    driver.add(0, PROMPT)
    driver.add(1, OTHER)
    driver.step({0: len(PROMPT) - 1, 1: len(OTHER) - 1})
    driver.runner._kv_cache.planes[:, driver.tables[1][0]] = torch.nan
    result = driver.step({1: 1, 0: 1})
    assert [(error.row, error.message) for error in result.errors] == [(1, NO_NUMBERS)]
    assert driver.tokens_by_row(result) == {0: expected[:1]}
    # The scheduler sent the next plan before it knew: the row counts on one more token.
    driver.num_tokens[1] += 1
    assert driver.step({1: 1}).errors


def test_a_row_whose_rules_leave_no_token_is_told_so(driver: PlanDriver) -> None:
    allowed = common_pb2.SamplingParams(temperature=0.0, allowed_token_ids=[4])
    driver.add(0, OTHER, sampling=allowed)
    driver._added[0].bad_words.add(ids=[4])
    driver.add(1, OTHER)
    result = driver.step({0: len(OTHER), 1: len(OTHER)})
    assert [(error.row, error.message) for error in result.errors] == [(0, NO_TOKEN_LEFT)]
    assert list(driver.tokens_by_row(result)) == [1]


def test_prompts_without_numbers_fail_and_get_no_token(driver: PlanDriver) -> None:
    driver.add(0, PROMPT)
    driver._added[0].num_prompt_logprobs = 1
    driver.step({0: 4})
    driver.runner._kv_cache.planes[:, driver.tables[0][0]] = torch.nan
    result = driver.step({0: len(PROMPT) - 4})
    assert [error.row for error in result.errors] == [0]
    assert not result.token_ids and not result.prompt_logprobs


def test_a_bad_plan_is_refused_and_changes_nothing(driver: PlanDriver, expected: list[int]) -> None:
    driver.add(0, PROMPT)
    driver.step({0: 5})
    before = driver.runner._device_rows.memory.clone()
    with pytest.raises(BadPlan, match="row 3"):
        driver.runner.start(
            step_pb2.StepPlan(
                freed_rows=[0],
                row=[3],
                num_new_tokens=[1],
                needs_sample=[0],
                groups=[step_pb2.GroupBlocks()],
            )
        )
    assert torch.equal(driver.runner._device_rows.memory, before)
    tokens = list(driver.step({0: 8}).token_ids)
    while len(tokens) < COUNT:
        tokens += driver.step({0: 1}).token_ids
    assert tokens == expected


def test_a_step_without_work_only_frees(driver: PlanDriver, expected: list[int]) -> None:
    driver.generate(0, OTHER, 3, 4)
    driver.free(0)
    result = driver.step({})
    assert not result.token_ids and not result.errors
    assert driver.generate(0, PROMPT, COUNT, 13) == expected


class NotedFetch:
    """Numbers on their way; notes that somebody waits for them."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.is_awaited = False

    def wait(self) -> list[Tensor]:
        self.is_awaited = True
        return self._fetch.wait()


class NotingStream:
    """The device's stream; keeps the fetches, to be looked at."""

    def __init__(self) -> None:
        self._stream = stream_of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        self.upload, self.mark = self._stream.upload, self._stream.mark
        self.fetches: list[NotedFetch] = []

    def fetch(self, tensors: Sequence[Tensor]) -> Fetch:
        self.fetches.append(NotedFetch(self._stream.fetch(tensors)))
        return self.fetches[-1]


def test_steps_are_started_one_after_another_before_any_result_has_come(
    saved: tuple[Path, LlamaForCausalLM], expected: list[int]
) -> None:
    stream = NotingStream()
    runner = poisoned_device_runner(saved[0], stream=stream)
    driver = PlanDriver(runner, BLOCK_SIZE)
    driver.add(2, PROMPT)
    steps = [runner.start(driver.plan({2: len(PROMPT)}))]
    for _ in range(COUNT - 1):
        driver.num_tokens[2] += 1
        steps.append(runner.start(driver.plan({2: 1})))
    assert not any(fetch.is_awaited for fetch in stream.fetches)
    assert [token for step in steps for token in step.result().token_ids] == expected
