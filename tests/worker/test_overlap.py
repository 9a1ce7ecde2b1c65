"""The loop beside a device: plans are started while steps run; answers keep their order."""

import asyncio
import threading

import pytest

from octavo.v1 import step_pb2
from octavo.worker.mock_device import MockDevice
from octavo.worker.mock_runner import MockRunner
from octavo.worker.pending_step import FinishedStep, PendingStep
from octavo.worker.step_loop import StepFailed, StepLoop
from tests.worker.plans import plan
from tests.worker.test_mock_runner import SETTINGS, expected_tokens
from tests.worker.test_step_loop import RecordingClient, first_plan, tokens_of

TIMEOUT_S = 30.0


class HeldStep:
    """A step that the device ends when a test says so; `fails` makes it end badly."""

    def __init__(self, finished: step_pb2.StepResult) -> None:
        self.may_end = threading.Event()
        self.fails = False
        self._finished = finished

    def result(self) -> step_pb2.StepResult:
        assert self.may_end.wait(TIMEOUT_S)
        if self.fails:
            raise RuntimeError("an illegal memory access was encountered")
        return self._finished


class HeldRunner:
    """The mock on a device whose steps end when a test says so; steps of no rows need none."""

    def __init__(self) -> None:
        self._mock = MockRunner(SETTINGS, poison=True)
        self.started: list[HeldStep] = []

    def describe(self) -> step_pb2.WorkerReady:
        return self._mock.describe()

    def prepare(self) -> bool:
        return False

    def start(self, plan: step_pb2.StepPlan) -> PendingStep:
        result = self._mock.execute(plan)
        if not plan.row:
            return FinishedStep(result)
        self.started.append(HeldStep(result))
        return self.started[-1]


class OpenClient(RecordingClient):
    """Gives plans as a test puts them; answers are in `answers`, in the order they were given."""

    def __init__(self) -> None:
        super().__init__([])
        self._queue: asyncio.Queue[step_pb2.StepPlan | Exception] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self.answers: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    def put(self, *plans: step_pb2.StepPlan) -> None:
        for each in plans:
            self._queue.put_nowait(each)

    async def next_plan(self) -> step_pb2.StepPlan:
        item = await self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def interrupt(self, error: Exception) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, error)

    def send_result(self, result: step_pb2.StepResult) -> None:
        super().send_result(result)
        self._answer("result", result.step_id)

    def refuse_plan(self, plan: step_pb2.StepPlan, reason: str) -> None:
        super().refuse_plan(plan, reason)
        self._answer("refused", plan.step_id)

    async def answer(self) -> tuple[str, int]:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.answers.get()

    def _answer(self, kind: str, step_id: int) -> None:
        self._loop.call_soon_threadsafe(self.answers.put_nowait, (kind, step_id))


class Overlap:
    """A loop under way on a held device."""

    def __init__(self) -> None:
        self.client = OpenClient()
        self.runner = HeldRunner()
        loop = StepLoop(self.runner, self.client, self.client.metrics)
        self.task = asyncio.create_task(loop.run())

    async def started(self, count: int) -> None:
        """Return when so many steps are on the device."""
        async with asyncio.timeout(TIMEOUT_S):
            while len(self.runner.started) < count:
                await asyncio.sleep(0)

    async def close(self) -> None:
        for step in self.runner.started:
            step.may_end.set()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_the_next_plan_is_started_before_the_step_ends() -> None:
    overlap = Overlap()
    overlap.client.put(first_plan(), *(plan(step_id, [(0, 1, 1)]) for step_id in (2, 3)))
    await overlap.started(3)
    assert overlap.client.results == []
    for step in overlap.runner.started:
        step.may_end.set()
    assert [await overlap.client.answer() for _ in range(3)] == [("result", i) for i in (1, 2, 3)]
    await overlap.close()
    assert tokens_of(overlap.client) == expected_tokens([5, 6], 3, seed=0)


async def test_results_are_sent_in_the_order_of_steps() -> None:
    overlap = Overlap()
    overlap.client.put(first_plan(), plan(2, [(0, 1, 1)]))
    await overlap.started(2)
    overlap.runner.started[1].may_end.set()
    overlap.runner.started[0].may_end.set()
    assert [await overlap.client.answer() for _ in range(2)] == [("result", 1), ("result", 2)]
    await overlap.close()


async def test_what_needs_no_device_is_answered_after_what_does() -> None:
    overlap = Overlap()
    freeing = plan(2)
    freeing.freed_rows.append(0)
    overlap.client.put(first_plan(), freeing, plan(3, [(3, 1, 1)]), first_plan(epoch=2))
    await overlap.started(2)
    assert overlap.client.answers.empty()
    for step in overlap.runner.started:
        step.may_end.set()
    answers = [await overlap.client.answer() for _ in range(4)]
    assert answers == [("result", 1), ("result", 2), ("refused", 3), ("result", 1)]
    await overlap.close()


async def test_a_step_that_fails_on_the_device_ends_the_worker_and_those_behind_it() -> None:
    overlap = Overlap()
    overlap.client.put(first_plan(), plan(2, [(0, 1, 1)]), plan(3, [(0, 1, 1)]))
    await overlap.started(3)
    overlap.runner.started[1].fails = True
    for step in overlap.runner.started:
        step.may_end.set()
    with pytest.raises(StepFailed, match="step 2 of 1 rows failed: RuntimeError: an illegal"):
        await overlap.task
    assert [result.step_id for result in overlap.client.results] == [1]


async def test_steps_that_were_started_are_answered_before_the_loop_ends() -> None:
    overlap = Overlap()
    overlap.client.put(first_plan(), plan(2, [(0, 1, 1)]))
    await overlap.started(2)
    await overlap.close()
    assert overlap.task.cancelled()
    assert [result.step_id for result in overlap.client.results] == [1, 2]


async def test_the_phase_is_that_of_the_oldest_step() -> None:
    overlap = Overlap()
    overlap.client.put(first_plan(), plan(2, [(0, 1, 1)]))
    await overlap.started(2)
    await overlap.close()
    assert overlap.client.phases == [
        (step_pb2.WORKER_PHASE_IDLE, 0),
        (step_pb2.WORKER_PHASE_FORWARD, 0),
        (step_pb2.WORKER_PHASE_SEND, 1),
        (step_pb2.WORKER_PHASE_FORWARD, 1),
        (step_pb2.WORKER_PHASE_SEND, 2),
        (step_pb2.WORKER_PHASE_IDLE, 2),
    ]


def test_steps_of_a_device_begin_where_the_one_before_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = 1_000
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns)
    device = MockDevice(5e-6)
    first, second = (device.launch(step_pb2.StepResult()) for _ in range(2))
    now_ns = 20_000
    third = device.launch(step_pb2.StepResult())
    assert [first.ends_ns, second.ends_ns, third.ends_ns] == [6_000, 11_000, 25_000]


async def test_a_plan_that_is_refused_changes_nothing_for_those_behind_it() -> None:
    overlap = Overlap()
    overlap.client.put(first_plan(), plan(2, [(3, 1, 1)]), plan(2, [(0, 1, 1)]))
    await overlap.started(2)
    await overlap.close()
    assert overlap.client.refused == [(2, "row 3 has work, but is not in use")]
    assert tokens_of(overlap.client) == expected_tokens([5, 6], 2, seed=0)
