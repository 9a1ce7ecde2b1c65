"""Forward passes by graph, and in parts where memory is short: tokens stay transformers'."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from octavo.v1 import common_pb2, scheduling_pb2
from octavo.worker import piecewise_graphs
from octavo.worker.device_head import NO_MEMORY
from octavo.worker.device_runner import DeviceRunner
from octavo.worker.models.decoder import StepInput
from tests.worker.any_requests import STOP, check_answers
from tests.worker.offline_engine import OfflineEngine
from tests.worker.plan_driver import PlanDriver
from tests.worker.recorder import Recorder, prepared
from tests.worker.runners import BLOCK_SIZE, poisoned_device_runner
from tests.worker.tiny_models import save_tiny_llama

Saved = tuple[Path, LlamaForCausalLM]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    path = tmp_path_factory.mktemp("tiny")
    return path, save_tiny_llama(path)


def requests() -> list[scheduling_pb2.SubmitRequest]:
    """Requests that begin and end to decode at different times; some are forked."""
    return [
        scheduling_pb2.SubmitRequest(
            prompt_token_ids=[(7 * i + j) % 96 for j in range(1 + 5 * i)],
            n=n,
            seeds=range(n),
            sampling=common_pb2.SamplingParams(temperature=0.7 * (i % 2), repetition_penalty=1.0),
            max_tokens=3 + 2 * i,
            stop_token_ids=[STOP],
            num_logprobs=1 if i == 2 else None,
            num_prompt_logprobs=1 if i == 2 else None,
        )
        for i, n in enumerate([1, 3, 1, 2])
    ]


@pytest.mark.parametrize("plans_ahead", [1, 2])
def test_steps_that_compute_prompts_run_on_graphs_of_pieces(
    saved: Saved, plans_ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = saved
    monkeypatch.setattr(piecewise_graphs, "_MAX_TOKENS", 24)
    recorder = Recorder()
    runner = prepared(poisoned_device_runner(path, recorder=recorder))
    sizes = [len(graph.output) for graph in recorder.graphs]
    assert sizes == [16, 8, 4, 2, 1, 24, 24, 16, 16]
    launched = sizes_of_launches(runner, monkeypatch)
    engine = OfflineEngine(runner, plans_ahead=plans_ahead, max_num_batched_tokens=28)
    check_answers(model, requests(), engine)
    # Steps larger than all graphs; what else there is runs on those of decode steps.
    assert 28 in launched and {*launched} - {28} <= {1, 2, 4, 8, 16}
    assert all(graph.num_replays for graph in recorder.graphs[-2:])


def test_a_prompt_of_any_length_has_the_tokens_that_launches_give(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piecewise_graphs, "_MAX_TOKENS", 24)
    prompt = [(5 * i) % 96 for i in range(26)]
    recorder = Recorder()
    answers = []
    for runner in (
        poisoned_device_runner(saved[0]),
        prepared(poisoned_device_runner(saved[0], recorder=recorder)),
    ):
        driver = PlanDriver(runner, BLOCK_SIZE)
        for length in range(2, len(prompt) + 1):
            answers.append(driver.generate(0, prompt[:length], 3, length))
            driver.free(0)
    assert answers[:25] == answers[25:]
    # The first layer's pieces, of the two sizes: all lengths but the two that are too long.
    assert recorder.graphs[-4].num_replays == 8
    assert recorder.graphs[-2].num_replays == 15


@pytest.mark.parametrize("plans_ahead", [1, 2])
def test_steps_that_decode_run_on_graphs(saved: Saved, plans_ahead: int) -> None:
    path, model = saved
    recorder = Recorder()
    runner = poisoned_device_runner(path, recorder=recorder)
    # The largest is captured before there is any step.
    assert [len(graph.output) for graph in recorder.graphs] == [16]
    check_answers(model, requests(), OfflineEngine(runner, plans_ahead=plans_ahead))
    assert len(recorder.graphs) > 1
    assert sum(graph.num_replays for graph in recorder.graphs) > 5


def test_no_graph_is_larger_than_steps_are(saved: Saved) -> None:
    recorder = Recorder()
    prepared(poisoned_device_runner(saved[0], recorder=recorder, max_num_batched_tokens=6))
    assert [len(graph.output) for graph in recorder.graphs] == [6, 4, 2, 1] + [6] * 2


def test_what_a_graph_runs_on_without_rows_is_written_nowhere(saved: Saved) -> None:
    runner = poisoned_device_runner(saved[0], recorder=Recorder())
    assert runner._kv_cache.tensor.isnan().all()


def short_of_memory(runner: DeviceRunner, most_tokens: int, monkeypatch: Any) -> list[int]:
    """Let passes of more tokens fail; returns the sizes of those that do not, as they come."""
    hidden_states, sizes = runner._forward._decoder.hidden_states, list[int]()

    def limited(step: StepInput) -> Tensor:
        if len(step.input_ids) > most_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(step.input_ids))
        return hidden_states(step)

    monkeypatch.setattr(runner._forward._decoder, "hidden_states", limited)
    return sizes


def sizes_of_launches(runner: DeviceRunner, monkeypatch: Any) -> list[int]:
    """Return the sizes of passes that run on no graph, as they come."""
    return short_of_memory(runner, 2048, monkeypatch)


@pytest.mark.parametrize("most_tokens", [1, 5, 9])
def test_steps_that_find_no_memory_are_computed_in_parts(
    saved: Saved, most_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = saved
    runner = poisoned_device_runner(path)
    sizes = short_of_memory(runner, most_tokens, monkeypatch)
    check_answers(model, requests(), OfflineEngine(runner))
    assert max(sizes) <= most_tokens


def test_where_not_one_token_finds_memory_the_row_fails_and_the_worker_lives(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = poisoned_device_runner(saved[0])
    short_of_memory(runner, 0, monkeypatch)
    driver = PlanDriver(runner, BLOCK_SIZE)
    driver.add(0, [1, 2, 3])
    result = driver.step({0: 3})
    assert [(error.row, error.message) for error in result.errors] == [(0, NO_MEMORY)]
    assert not result.token_ids
    monkeypatch.undo()
    driver.free(0)
    other = PlanDriver(poisoned_device_runner(saved[0]), BLOCK_SIZE)
    assert driver.generate(1, [1, 2, 3], 4, 2) == other.generate(1, [1, 2, 3], 4, 2)
