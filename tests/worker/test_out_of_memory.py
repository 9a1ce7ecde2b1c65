"""A device that runs out of memory: requests are answered as always or told why not, and it lives.

Any single allocation of a step may fail, or all from one on, or all above some size.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial, wraps
from operator import eq, le, lt
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from octavo.v1.common_pb2 import SamplingParams
from octavo.v1.step_pb2 import StepPlan, StepResult
from octavo.worker import device_batch, device_runner, run_list
from octavo.worker.cuda_graphs import GraphRecorder
from octavo.worker.device_head import NO_MEMORY
from octavo.worker.device_runner import DeviceRunner
from octavo.worker.device_stream import HostFetch, HostStream
from tests.worker.plan_driver import GREEDY, PlanDriver
from tests.worker.recorder import Replayed, prepared
from tests.worker.runners import BLOCK_SIZE, poisoned_device_runner
from tests.worker.tiny_models import save_tiny_llama

Tokens = dict[int, list[int]]

RULES = SamplingParams(temperature=0.7, top_p=0.9, repetition_penalty=1.3, presence_penalty=0.5)
# How many rows there are, one that is forked last.
ROWS = (0, 1, 2, 3)


def never(number: int) -> bool:
    return False


class Allocator(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what takes memory of the device, and refuses what it is told to."""

    def __init__(
        self,
        refuses: Callable[[int], bool] = never,
        refuses_size: Callable[[int], bool] = never,
    ) -> None:
        """Each asks about an allocation: how many were before it, or how many bytes it takes."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._refuses = refuses
        self._refuses_size = refuses_size
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returned = result if isinstance(result, list | tuple) else [result]
        is_new = [each.alias_info is None for each in func._schema.returns]
        size = sum(
            each.nbytes
            for each, new in zip(returned, is_new * len(returned), strict=False)
            if new and isinstance(each, Tensor)
        )
        if size:
            self.count += 1
            if self._refuses(self.count - 1) or self._refuses_size(size):
                raise torch.OutOfMemoryError("CUDA out of memory")
        return result


class PinnedStream(HostStream):
    """Copies to the host take no memory of the device."""

    def fetch(self, tensors: Sequence[Tensor]) -> HostFetch:
        with _disable_current_modes():
            return super().fetch(tensors)


class ReplayedInPlace(Replayed):
    """When recorded work is done again, nothing is allocated."""

    def replay(self) -> None:
        with _disable_current_modes():
            super().replay()


class InPlaceRecorder:
    def record(self, work: Callable[[], Tensor]) -> Replayed:
        return ReplayedInPlace(work)


@pytest.fixture(autouse=True)
def kernels_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device these write where they are told to, and take nothing."""

    def allocating_nothing(kernel: Callable[..., None]) -> Callable[..., None]:
        @wraps(kernel)
        def run(*args: Any, **kwargs: Any) -> None:
            with _disable_current_modes():
                kernel(*args, **kwargs)

        return run

    for module, name in (
        (device_batch, "append_tokens"),
        (device_runner, "copy_blocks"),
        (run_list, "write_runs"),
    ):
        monkeypatch.setattr(module, name, allocating_nothing(getattr(module, name)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path, num_hidden_layers=1)
    return path


class ShortRunner:
    """A runner whose next step is queued while an allocator watches."""

    def __init__(self, runner: DeviceRunner) -> None:
        self._runner = runner
        self.allocator: Allocator | None = None

    def execute(self, plan: StepPlan) -> StepResult:
        with self.allocator or nullcontext():
            step = self._runner.start(plan)
        return step.result()


class Trial:
    """The same two steps again and again: prompts beside a row that decodes, then all decode.

    Attributes:
        expected: the tokens of both where there is memory.
        num_allocations: of both.
    """

    def __init__(self, path: Path, recorder: GraphRecorder | None) -> None:
        stream = PinnedStream()
        runner = poisoned_device_runner(path, num_blocks=20_000, stream=stream, recorder=recorder)
        self._runner = ShortRunner(prepared(runner))
        self._driver = PlanDriver(self._runner, BLOCK_SIZE)
        counts = Allocator(), Allocator()
        self.expected, failures, num_logprobs = self.run(*counts)
        assert not failures and num_logprobs == 8
        self.num_allocations = [each.count for each in counts]

    def run(self, *allocators: Allocator | None) -> tuple[list[Tokens], dict[int, str], int]:
        """Run both steps.

        Returns the tokens of both, what was told of rows that failed, and how many
        log-probabilities there were.
        """
        driver = self._driver
        driver.add(0, [5, 9, 11], sampling=RULES, seed=4)
        driver.step({0: 3})
        driver.add(1, list(range(7)), sampling=GREEDY)
        driver.add(2, list(range(20, 31)), sampling=RULES, seed=8)
        for added in driver._added:
            added.num_logprobs, added.num_prompt_logprobs = 2, 1
        running, failures = {*ROWS}, dict[int, str]()
        tokens = []
        num_logprobs = 0
        steps = ({0: 1, 1: 7, 2: 11}, dict.fromkeys(ROWS, 1))
        for i, (step, allocator) in enumerate(zip(steps, allocators, strict=True)):
            left = {row: count for row, count in step.items() if row not in failures}
            if i == 1 and not {2, 3} & {*failures}:
                driver.copy_last_block(3)
            self._runner.allocator = allocator
            result = driver.step(left, forks={3: (2, 77)} if i == 0 else None)
            self._runner.allocator = None
            tokens.append(driver.tokens_by_row(result))
            num_logprobs += len(result.logprobs) + len(result.prompt_logprobs)
            failures |= {error.row: error.message for error in result.errors}
            for row in running & {*failures}:
                driver.free(row)
            running -= {*failures}
        for row in running:
            driver.free(row)
        return tokens, failures, num_logprobs


@pytest.fixture(scope="module", params=[False, True], ids=["launches", "graphs"])
def trial(saved: Path, request: pytest.FixtureRequest) -> Trial:
    return Trial(saved, InPlaceRecorder() if request.param else None)


def check(trial: Trial, step: int, allocator: Allocator) -> dict[int, str]:
    """Run both steps, one with this allocator; returns who failed, which others do not notice."""
    allocators: list[Allocator | None] = [None, None]
    allocators[step] = allocator
    told, failures, _ = trial.run(*allocators)
    assert {*failures.values()} <= {NO_MEMORY}
    for tokens, all_tokens in zip(told, trial.expected, strict=True):
        assert tokens == {row: all_tokens[row] for row in tokens}
        assert {*tokens, *failures} == {*all_tokens}
    return failures


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 1])
def test_an_allocation_that_fails_once_changes_nothing(trial: Trial, step: int) -> None:
    assert trial.num_allocations[step] > 5
    for n in range(trial.num_allocations[step]):
        assert not check(trial, step, Allocator(partial(eq, n))), n


@pytest.mark.parametrize("step", [0, 1])
def test_rows_fail_where_from_some_moment_on_there_is_no_memory(trial: Trial, step: int) -> None:
    num_failures = set()
    for n in range(0, trial.num_allocations[step], 3):
        failures = check(trial, step, Allocator(partial(le, n)))
        num_failures.add(len(failures))
    assert max(num_failures) == len(ROWS)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("most_bytes", [0, 8, 100, 400, 1000, 3000, 10_000])
def test_what_does_not_fit_at_once_is_computed_in_parts(
    trial: Trial, step: int, most_bytes: int
) -> None:
    failures = check(trial, step, Allocator(refuses_size=partial(lt, most_bytes)))
    assert len(failures) < len(ROWS) or most_bytes < 10_000


class NoMemory:
    def record(self, work: Callable[[], Tensor]) -> Replayed:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_without_memory_for_the_first_graph_steps_run_on_none(saved: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        runner = poisoned_device_runner(saved, recorder=NoMemory())
    (warning,) = logs
    assert warning["log_level"] == "warning" and "--gpu-memory-utilization" in warning["event"]
    assert not runner.prepare()
    driver, other = (
        PlanDriver(each, BLOCK_SIZE) for each in (runner, poisoned_device_runner(saved))
    )
    assert driver.generate(0, [1, 2, 3], 4, 2) == other.generate(0, [1, 2, 3], 4, 2)
