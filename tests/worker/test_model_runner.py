"""octavo.worker.model_runner: hand-made plans against transformers' greedy tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from octavo.v1 import common_pb2, step_pb2
from octavo.worker.model_runner import ModelRunner
from octavo.worker.rows import BadPlan
from tests.worker.plan_driver import PlanDriver
from tests.worker.runners import BLOCK_SIZE, loaded_runner, poisoned_runner
from tests.worker.tiny_models import LLAMA3_ROPE, greedy_tokens, save_tiny_llama, write_gguf

PROMPT = [5, 17, 80, 3, 3, 41, 9, 66, 2, 90, 11, 30, 7]
OTHER = [70, 1, 22, 48, 6, 13, 35]
COUNT = 12
SEEDED = common_pb2.SamplingParams(temperature=0.9, top_p=0.95, top_k=40)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    path = tmp_path_factory.mktemp("tiny")
    return path, save_tiny_llama(path)


@pytest.fixture
def driver(saved: tuple[Path, LlamaForCausalLM]) -> PlanDriver:
    return PlanDriver(poisoned_runner(saved[0]), BLOCK_SIZE)


@pytest.fixture
def int8_driver(saved: tuple[Path, LlamaForCausalLM]) -> PlanDriver:
    """The same with a cache of bytes."""
    return PlanDriver(poisoned_runner(saved[0], cache_dtype=torch.int8), BLOCK_SIZE)


@pytest.fixture(scope="module")
def expected(saved: tuple[Path, LlamaForCausalLM]) -> list[int]:
    return greedy_tokens(saved[1], PROMPT, COUNT)


@pytest.mark.parametrize("chunk", [1, 3, 4, 13], ids=lambda chunk: f"chunks of {chunk}")
def test_greedy_tokens_are_transformers_whatever_the_chunk(
    driver: PlanDriver, expected: list[int], chunk: int
) -> None:
    assert driver.generate(3, PROMPT, COUNT, chunk) == expected


def test_tokens_of_an_int8_cache_are_the_same_whatever_the_chunk(int8_driver: PlanDriver) -> None:
    whole = int8_driver.generate(0, PROMPT, COUNT, len(PROMPT))
    for row, chunk in enumerate((1, 3, 4), start=1):
        assert int8_driver.generate(row, PROMPT, COUNT, chunk) == whole


@pytest.mark.parametrize(
    "changes",
    [{"tie_word_embeddings": True, "num_key_value_heads": 1}, {"rope_parameters": LLAMA3_ROPE}],
    ids=["tied", "llama3 rope"],
)
def test_greedy_tokens_are_transformers_from_a_gguf_file(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    model = save_tiny_llama(tmp_path, **changes)
    write_gguf(tmp_path / "tiny.gguf", model)
    expected = greedy_tokens(model, PROMPT, COUNT)
    driver = PlanDriver(loaded_runner(tmp_path / "tiny.gguf"), BLOCK_SIZE)
    assert driver.generate(0, PROMPT, COUNT, len(PROMPT)) == expected


def test_rows_in_one_step_do_not_disturb_each_other(
    driver: PlanDriver, saved: tuple[Path, LlamaForCausalLM], expected: list[int]
) -> None:
    driver.add(7, PROMPT)
    tokens: dict[int, list[int]] = {7: [], 2: []}
    driver.step({7: 5})
    # The second row's whole prompt comes beside a chunk of the first's, listed before it.
    driver.add(2, OTHER)
    results = [driver.step({2: len(OTHER), 7: 8})]
    results += [driver.step({7: 1, 2: 1}) for _ in range(COUNT - 1)]
    for result in results:
        for row, sampled in driver.tokens_by_row(result).items():
            tokens[row] += sampled
    assert tokens[7] == expected
    assert tokens[2] == greedy_tokens(saved[1], OTHER, COUNT)


def test_result_has_tokens_for_the_rows_that_sampled(driver: PlanDriver) -> None:
    driver.add(4, PROMPT)
    driver.add(1, OTHER)
    result = driver.step({4: 6, 1: len(OTHER)})
    assert (result.epoch, result.step_id) == (1, 1)
    assert len(result.token_ids) == 1
    assert result.timings.forward_ns > 0


def test_a_step_without_work_only_frees(driver: PlanDriver, expected: list[int]) -> None:
    driver.generate(0, OTHER, 3, 4)
    driver.free(0)
    result = driver.step({})
    assert not result.token_ids
    # The row is poisoned now; whoever takes it next sees nothing of that.
    assert driver.generate(0, PROMPT, COUNT, 13) == expected


@pytest.mark.parametrize("cache", ["driver", "int8_driver"])
def test_forks_share_the_prompt_and_go_on_apart(cache: str, request: pytest.FixtureRequest) -> None:
    driver: PlanDriver = request.getfixturevalue(cache)
    alone = {}
    for row, seed in ((0, 40), (1, 41), (2, 42)):
        driver.add(row, PROMPT, sampling=SEEDED, seed=seed)
        tokens = list(driver.step({row: len(PROMPT)}).token_ids)
        while len(tokens) < COUNT:
            tokens += driver.step({row: 1}).token_ids
        alone[seed] = tokens
    assert len({tuple(tokens) for tokens in alone.values()}) == 3

    driver.add(10, PROMPT, sampling=SEEDED, seed=40)
    result = driver.step({10: len(PROMPT)}, forks={11: (10, 41), 12: (10, 42)})
    together = driver.tokens_by_row(result)
    assert list(together) == [10, 11, 12]
    # Thirteen tokens leave the fourth block partial, and all three hold it: two copy it before
    # they write, and the last one writes in place.
    driver.copy_last_block(10)
    driver.copy_last_block(11)
    while len(together[12]) < COUNT:
        for row, sampled in driver.tokens_by_row(driver.step({11: 1, 12: 1, 10: 1})).items():
            together[row] += sampled
    assert together == {10: alone[40], 11: alone[41], 12: alone[42]}


@pytest.mark.parametrize("cache", ["driver", "int8_driver"])
def test_a_row_that_comes_back_draws_the_same_tokens(
    cache: str, request: pytest.FixtureRequest
) -> None:
    driver: PlanDriver = request.getfixturevalue(cache)
    driver.add(0, PROMPT, sampling=SEEDED, seed=7)
    tokens = list(driver.step({0: len(PROMPT)}).token_ids)
    while len(tokens) < COUNT:
        tokens += driver.step({0: 1}).token_ids
    # As after preemption: all known tokens in one go, on another row.
    driver.free(0)
    driver.add(9, PROMPT + tokens[:5], sampling=SEEDED, seed=7)
    again = list(driver.step({9: len(PROMPT) + 5}).token_ids)
    while len(again) < COUNT - 5:
        again += driver.step({9: 1}).token_ids
    assert again == tokens[5:]


def test_a_row_whose_logits_are_nan_fails_alone(driver: PlanDriver, expected: list[int]) -> None:
    driver.add(0, PROMPT)
    driver.add(1, OTHER)
    driver.step({0: len(PROMPT) - 1, 1: len(OTHER) - 1})
    kv_cache = driver.runner._kv_cache.tensor
    kv_cache[:, driver.tables[1][0]] = torch.nan
    result = driver.step({1: 1, 0: 1})
    (error,) = result.errors
    assert error.row == 1
    assert "NaN" in error.message
    assert driver.tokens_by_row(result) == {0: expected[:1]}


def test_a_plan_under_way_after_a_failed_row_still_runs(driver: PlanDriver) -> None:
    driver.add(1, OTHER)
    driver.step({1: len(OTHER) - 1})
    driver.runner._kv_cache.tensor[:, driver.tables[1][0]] = torch.nan
    assert driver.step({1: 1}).errors
    # The scheduler sent the next plan before it knew: the row counts on one more token.
    driver.num_tokens[1] += 1
    assert driver.step({1: 1}).errors


def test_a_bad_plan_is_refused_and_changes_nothing(driver: PlanDriver, expected: list[int]) -> None:
    driver.add(0, PROMPT)
    driver.step({0: 5})
    with pytest.raises(BadPlan, match="row 3"):
        driver.runner.execute(
            step_pb2.StepPlan(
                epoch=1,
                step_id=9,
                freed_rows=[0],
                row=[3],
                num_new_tokens=[1],
                needs_sample=[0],
                groups=[step_pb2.GroupBlocks()],
            )
        )
    tokens = list(driver.step({0: 8}).token_ids)
    while len(tokens) < COUNT:
        tokens += driver.step({0: 1}).token_ids
    assert tokens == expected


def test_description_is_given_out_as_a_copy(saved: tuple[Path, LlamaForCausalLM]) -> None:
    runner: ModelRunner = loaded_runner(saved[0])
    runner.describe().rank = 5
    assert runner.describe().rank == 0
