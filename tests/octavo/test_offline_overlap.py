"""Without a server, too, a step is started on a device before the one before it is waited for."""

from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from octavo import llm as llm_module
from octavo.v1.step_pb2 import StepPlan, StepResult, WorkerReady
from octavo.worker.loading import load_model_runner
from octavo.worker.step_loop import StepRunner

PROMPTS = ["the cat sat on", "the", "a mat and"]


class LateStep:
    def __init__(self, result: StepResult, journal: list[str]) -> None:
        self._result = result
        self._journal = journal

    def result(self) -> StepResult:
        self._journal.append(f"result {self._result.step_id}")
        return self._result


class LateRunner:
    """A runner whose results come when they are waited for, as a device's do."""

    def __init__(self, runner: StepRunner, journal: list[str]) -> None:
        self._runner = runner
        self._journal = journal

    def describe(self) -> WorkerReady:
        return self._runner.describe()

    def prepare(self) -> bool:
        return self._runner.prepare()

    def start(self, plan: StepPlan) -> LateStep:
        self._journal.append(f"start {plan.step_id}")
        return LateStep(self._runner.start(plan).result(), self._journal)


@pytest.mark.parametrize("async_scheduling", [True, False])
def test_steps_overlap_and_the_outputs_are_the_same(
    async_scheduling: bool, llm: LLM, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal: list[str] = []

    def load(*arguments: Any) -> LateRunner:
        return LateRunner(load_model_runner(*arguments), journal)

    monkeypatch.setattr(llm_module, "load_model_runner", load)
    options = {"dtype": "float32", "kv_cache_memory_bytes": 1 << 20, "max_num_seqs": 8}
    late = LLM(str(path), async_scheduling=async_scheduling, **options)  # type: ignore[arg-type]
    sampling = SamplingParams(temperature=0.9, seed=3, max_tokens=9, n=2)
    expected, actual = (each.generate(PROMPTS, sampling) for each in (llm, late))
    assert [[output.token_ids for output in each.outputs] for each in actual] == [
        [output.token_ids for output in each.outputs] for each in expected
    ]
    late.close()
    started = sum(entry.startswith("start") for entry in journal)
    for step_id in range(1, started):
        is_before = journal.index(f"start {step_id + 1}") < journal.index(f"result {step_id}")
        assert is_before == async_scheduling, journal


def test_what_steps_would_wait_for_is_prepared_before_the_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal: list[str] = []

    class PreparingRunner(LateRunner):
        def prepare(self) -> bool:
            journal.append("prepare")
            return len(journal) < 3

    def load(*arguments: Any) -> LateRunner:
        return PreparingRunner(load_model_runner(*arguments), journal)

    monkeypatch.setattr(llm_module, "load_model_runner", load)
    LLM(str(path), dtype="float32", kv_cache_memory_bytes=1 << 20, max_num_seqs=8).close()
    assert journal == ["prepare"] * 3
