"""The worker's loop: each plan once and in order, bad ones refused, broken steps end it."""

import asyncio
from collections.abc import Iterator

import pytest

from octavo import failpoints
from octavo.v1 import step_pb2
from octavo.worker.metrics import WorkerMetrics
from octavo.worker.mock_runner import MockRunner
from octavo.worker.step_loop import StepFailed, StepLoop
from tests.worker.plans import added, plan
from tests.worker.test_mock_runner import SETTINGS, expected_tokens


class RecordingClient:
    """Gives plans from a list and notes what comes back."""

    def __init__(self, plans: list[step_pb2.StepPlan]) -> None:
        self._plans = iter(plans)
        self.results: list[step_pb2.StepResult] = []
        self.refused: list[tuple[int, str]] = []
        self.phases: list[tuple[step_pb2.WorkerPhase, int]] = []
        self.interruption: Exception | None = None
        self.metrics = WorkerMetrics(step_pb2.WorkerReady())

    async def next_plan(self) -> step_pb2.StepPlan:
        if self.interruption is not None:
            raise self.interruption
        if (next_plan := next(self._plans, None)) is None:
            raise asyncio.CancelledError
        return next_plan

    async def next_plan_at_once(self) -> step_pb2.StepPlan:
        return await self.next_plan()

    async def has_plan(self) -> bool:
        return True

    def interrupt(self, error: Exception) -> None:
        self.interruption = error

    def send_result(self, result: step_pb2.StepResult) -> None:
        self.results.append(result)

    def refuse_plan(self, plan: step_pb2.StepPlan, reason: str) -> None:
        self.refused.append((plan.step_id, reason))

    def set_phase(self, phase: step_pb2.WorkerPhase, last_step_id: int) -> None:
        self.phases.append((phase, last_step_id))


def step_loop(client: RecordingClient) -> StepLoop:
    return StepLoop(MockRunner(SETTINGS), client, client.metrics)


async def run(*plans: step_pb2.StepPlan) -> RecordingClient:
    client = RecordingClient(list(plans))
    with pytest.raises(asyncio.CancelledError):
        await step_loop(client).run()
    return client


def first_plan(step_id: int = 1, epoch: int = 1) -> step_pb2.StepPlan:
    first = plan(step_id, [(0, 2, 1)], epoch=epoch)
    first.added_rows.append(added(0, [5, 6], [0]))
    return first


def tokens_of(client: RecordingClient) -> list[int]:
    return [token_id for result in client.results for token_id in result.token_ids]


async def test_a_plan_received_twice_runs_once() -> None:
    client = await run(
        first_plan(), first_plan(), plan(2, [(0, 1, 1)]), first_plan(), plan(2, [(0, 1, 1)])
    )
    assert [result.step_id for result in client.results] == [1, 2]
    assert tokens_of(client) == expected_tokens([5, 6], 2, seed=0)
    assert client.refused == []


async def test_a_bad_plan_is_refused_and_a_right_one_with_its_number_runs() -> None:
    client = await run(first_plan(), plan(2, [(3, 1, 1)]), plan(2, [(0, 1, 1)]))
    assert client.refused == [(2, "row 3 has work, but is not in use")]
    assert tokens_of(client) == expected_tokens([5, 6], 2, seed=0)


async def test_a_missing_plan_is_noticed() -> None:
    client = await run(first_plan(), plan(3, [(0, 1, 1)]))
    assert client.refused == [(3, "step 3 follows step 1: one is missing")]


async def test_steps_of_a_new_scheduler_are_counted_anew() -> None:
    client = await run(first_plan(step_id=7), first_plan(step_id=3, epoch=2))
    assert [(result.epoch, result.step_id) for result in client.results] == [(1, 7), (2, 3)]


async def test_the_phase_says_what_the_worker_is_doing() -> None:
    client = await run(first_plan())
    assert client.phases == [
        (step_pb2.WORKER_PHASE_IDLE, 0),
        (step_pb2.WORKER_PHASE_FORWARD, 0),
        (step_pb2.WORKER_PHASE_SEND, 1),
        (step_pb2.WORKER_PHASE_IDLE, 1),
    ]


class LateClient(RecordingClient):
    """Has no plan the first times that it is asked."""

    def __init__(self, num_times: int) -> None:
        super().__init__([first_plan()])
        self._num_times = num_times

    async def has_plan(self) -> bool:
        self._num_times -= 1
        return self._num_times < 0


class PreparingRunner(MockRunner):
    """Has some pieces of work for the time until there is a plan."""

    def __init__(self, num_pieces: int) -> None:
        super().__init__(SETTINGS)
        self.num_pieces = num_pieces

    def prepare(self) -> bool:
        self.num_pieces -= 1
        return self.num_pieces > 0


@pytest.mark.parametrize(("num_pieces", "num_times", "num_left"), [(3, 9, 0), (9, 2, 7), (1, 0, 1)])
async def test_the_runner_prepares_until_there_is_a_plan_or_nothing_left(
    num_pieces: int, num_times: int, num_left: int
) -> None:
    client, runner = LateClient(num_times), PreparingRunner(num_pieces)
    with pytest.raises(asyncio.CancelledError):
        await StepLoop(runner, client, client.metrics).run()
    assert runner.num_pieces == num_left
    assert [result.step_id for result in client.results] == [1]


@pytest.fixture
def _no_failpoints() -> Iterator[None]:
    yield
    failpoints.deactivate_all()


@pytest.mark.usefixtures("_no_failpoints")
@pytest.mark.parametrize("place", ["worker.before_step", "worker.after_step"])
async def test_a_step_that_fails_ends_the_worker_with_a_sentence(place: str) -> None:
    failpoints.activate([f"{place}=raise"])
    with pytest.raises(StepFailed, match=f"step 1 of 1 rows failed: .*{place}"):
        await step_loop(RecordingClient([first_plan()])).run()


async def test_steps_that_ran_are_counted_once_and_refused_plans_apart() -> None:
    client = await run(first_plan(), first_plan(), plan(2, [(3, 1, 1)]), plan(2, [(0, 1, 1)]))
    value = client.metrics.registry.get_sample_value
    assert value("octavo_worker_step_tokens_sum") == 3
    for part in ("stage", "copy", "forward", "sample", "send"):
        assert value("octavo_worker_step_seconds_count", {"part": part}) == 2, part
    assert value("octavo_worker_sampled_tokens_total") == 2
    assert value("octavo_worker_refused_plans_total") == 1
