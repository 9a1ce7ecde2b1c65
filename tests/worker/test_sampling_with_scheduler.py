"""Sampling parameters and log-probabilities, however the requests that want them are planned."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from octavo.startup import StartupReport
from octavo.v1 import scheduling_pb2
from octavo.worker.loading import load_model_runner
from octavo.worker.step_loop import StepRunner
from tests.worker.any_requests import check_answers, requests
from tests.worker.offline_engine import OfflineEngine
from tests.worker.runners import poisoned_device_runner, settings_for
from tests.worker.tiny_models import save_tiny_llama

# The longest request needs 12 blocks of 4; all together, more than there are.
NUM_BLOCKS = 20


class Tiny:
    """One loaded model, used by many engines after one another."""

    def __init__(self, model: LlamaForCausalLM, runner: StepRunner) -> None:
        self.model = model
        self.runner = runner
        self._epoch = 0
        self.num_preemptions = 0

    def engine(self, *, has_cache: bool, chunk: int, plans_ahead: int) -> OfflineEngine:
        self._epoch += 1
        return OfflineEngine(
            self.runner,
            epoch=self._epoch,
            max_num_batched_tokens=chunk,
            enable_prefix_caching=has_cache,
            plans_ahead=plans_ahead,
        )


def on_cpu(path: Path) -> StepRunner:
    return load_model_runner(settings_for(path, num_blocks=NUM_BLOCKS), StartupReport(None))


def on_device(path: Path) -> StepRunner:
    return poisoned_device_runner(path, num_blocks=NUM_BLOCKS)


@pytest.fixture(scope="module", params=[on_cpu, on_device], ids=["cpu", "device"])
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tiny]:
    path = tmp_path_factory.mktemp("tiny")
    tiny = Tiny(save_tiny_llama(path), request.param(path))
    yield tiny
    assert tiny.num_preemptions, "the blocks were enough for everyone"


@pytest.mark.slow
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    asked=st.lists(requests(), min_size=1, max_size=4),
    has_cache=st.booleans(),
    chunk=st.sampled_from([5, 16, 2048]),
    plans_ahead=st.sampled_from([1, 2]),
)
def test_tokens_are_the_references_whatever_the_parameters_and_the_plan(
    tiny: Tiny,
    asked: list[scheduling_pb2.SubmitRequest],
    has_cache: bool,
    chunk: int,
    plans_ahead: int,
) -> None:
    engine = tiny.engine(has_cache=has_cache, chunk=chunk, plans_ahead=plans_ahead)
    check_answers(tiny.model, asked, engine)
    tiny.num_preemptions += engine.scheduler.stats.num_preemptions
