"""The worker's client against a real ROUTER socket that a test holds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq
import zmq.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.startup import StartupError
from octavo.v1 import step_pb2
from octavo.version import PROTOCOL_VERSION
from octavo.worker.mock_runner import MockRunner
from octavo.worker.scheduler_client import SchedulerClient
from octavo.worker.scheduler_link import RefusedByScheduler
from tests.worker.plans import plan
from tests.worker.test_mock_runner import SETTINGS

READY = MockRunner(SETTINGS).describe()
TIMEOUT_S = 30.0


class ScriptedScheduler:
    """The other end of the socket: reads frames of one kind, sends whatever a test likes."""

    def __init__(self, endpoint: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(endpoint)
        self.identity = b""

    async def receive(self, kind: str) -> step_pb2.WorkerFrame:
        """Return the next frame of this kind, passing over the others."""
        async with asyncio.timeout(self._timeout_s):
            while True:
                self.identity, body = await self._socket.recv_multipart()
                frame = step_pb2.WorkerFrame.FromString(body)
                if frame.WhichOneof("message") == kind:
                    return frame

    async def send(self, frame: step_pb2.SchedulerFrame) -> None:
        await self.send_raw(frame.SerializeToString())

    async def send_raw(self, *parts: bytes) -> None:
        await self._socket.send_multipart([self.identity, *parts])

    async def welcome(self, epoch: int) -> None:
        await self.receive("ready")
        welcome = step_pb2.WorkerWelcome(epoch=epoch)
        await self.send(step_pb2.SchedulerFrame(welcome=welcome))

    async def send_plan(self, step_id: int, epoch: int) -> None:
        await self.send(step_pb2.SchedulerFrame(plan=plan(step_id, epoch=epoch)))

    def close(self) -> None:
        self._context.destroy(linger=0)


@asynccontextmanager
async def connected(directory: Path) -> AsyncIterator[tuple[ScriptedScheduler, SchedulerClient]]:
    endpoint = f"ipc://{directory}/workers.sock"
    scheduler = ScriptedScheduler(endpoint)
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            SchedulerClient(endpoint, READY, rank=0) as client,
        ):
            yield scheduler, client
    finally:
        scheduler.close()


async def test_a_worker_says_who_it_is_until_it_is_answered(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        first = (await scheduler.receive("ready")).ready
        second = (await scheduler.receive("ready")).ready
        assert first == second
        assert first.protocol_version == PROTOCOL_VERSION
        assert scheduler.identity == f"0-0-{first.incarnation:x}".encode()
        assert first.model_hash == READY.model_hash
        await scheduler.welcome(epoch=4)
        assert await client.welcomed() == 4


async def test_plans_come_in_order_and_results_and_refusals_go_back(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.welcome(epoch=1)
        for step_id in (1, 2, 3):
            await scheduler.send_plan(step_id, epoch=1)
        plans = [await client.next_plan() for _ in range(3)]
        assert [received.step_id for received in plans] == [1, 2, 3]
        client.send_result(step_pb2.StepResult(epoch=1, step_id=1, token_ids=[5]))
        assert (await scheduler.receive("result")).result.token_ids == [5]
        client.refuse_plan(plans[1], "it is wrong")
        refused = (await scheduler.receive("plan_refused")).plan_refused
        assert refused == step_pb2.PlanRefused(epoch=1, step_id=2, reason="it is wrong")


@asynccontextmanager
async def blocking(
    tmp_path: Path,
) -> "AsyncIterator[tuple[zmq.Socket[bytes], bytes, SchedulerClient]]":
    """A scheduler's socket that is read without the event loop, a worker's identity, the worker."""
    endpoint = f"ipc://{tmp_path}/workers.sock"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as scheduler:
        scheduler.setsockopt(zmq.RCVTIMEO, int(TIMEOUT_S * 1000))
        scheduler.bind(endpoint)
        async with SchedulerClient(endpoint, READY, rank=0) as client:
            identity, _ = scheduler.recv_multipart()
            welcome = step_pb2.SchedulerFrame(welcome=step_pb2.WorkerWelcome(epoch=1))
            scheduler.send_multipart([identity, welcome.SerializeToString()])
            await client.welcomed()
            yield scheduler, identity, client


def receive_beat(scheduler: "zmq.Socket[bytes]") -> step_pb2.Heartbeat:
    """Wait for the next heartbeat without the event loop."""
    while True:
        frame = step_pb2.WorkerFrame.FromString(scheduler.recv_multipart()[1])
        if frame.HasField("heartbeat"):
            return frame.heartbeat


async def test_heartbeats_go_on_while_a_step_blocks_the_event_loop(tmp_path: Path) -> None:
    async with blocking(tmp_path) as (scheduler, _, client):
        client.set_phase(step_pb2.WORKER_PHASE_FORWARD, 3)
        # Without the event loop, as a forward pass.
        beats = [receive_beat(scheduler) for _ in range(2)]
    assert all(beat.phase == step_pb2.WORKER_PHASE_FORWARD for beat in beats)
    assert [(beat.epoch, beat.last_step_id) for beat in beats] == [(1, 3), (1, 3)]
    assert 0 < beats[0].phase_ns < beats[1].phase_ns


async def test_plans_stay_in_order_though_some_come_during_a_step(tmp_path: Path) -> None:
    async with blocking(tmp_path) as (scheduler, identity, client):
        for step_id in range(1, 5):
            frame = step_pb2.SchedulerFrame(plan=plan(step_id, epoch=1))
            scheduler.send_multipart([identity, frame.SerializeToString()])
            if step_id == 1:
                # Without the event loop, as in a step: it is the heartbeats that take this one.
                for _ in range(2):
                    receive_beat(scheduler)
        assert [(await client.next_plan()).step_id for _ in range(4)] == [1, 2, 3, 4]


async def test_plans_of_another_epoch_change_nothing_but_a_counter(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.receive("ready")
        await scheduler.send_plan(1, epoch=0)
        await scheduler.welcome(epoch=5)
        await scheduler.send_plan(2, epoch=4)
        await scheduler.send_plan(3, epoch=6)
        await scheduler.send_plan(4, epoch=5)
        assert (await client.next_plan()).step_id == 4
        assert client.num_stale_frames == 3


async def test_only_a_greater_epoch_is_accepted(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.welcome(epoch=5)
        await client.welcomed()
        for epoch in (4, 5):
            welcome = step_pb2.WorkerWelcome(epoch=epoch)
            await scheduler.send(step_pb2.SchedulerFrame(welcome=welcome))
        await scheduler.send_plan(1, epoch=5)
        await client.next_plan()
        assert client.num_stale_frames == 2


async def test_a_scheduler_that_takes_over_is_told_of_the_last_epoch(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.welcome(epoch=5)
        await scheduler.receive("heartbeat")
        nobody = step_pb2.Heartbeat(epoch=0)
        await scheduler.send(step_pb2.SchedulerFrame(heartbeat=nobody))
        assert (await scheduler.receive("ready")).ready.last_epoch == 5
        await scheduler.welcome(epoch=6)
        assert await client.welcomed() == 5
        assert await client.welcomed() == 6


async def test_a_worker_finds_a_scheduler_that_starts_after_it(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/workers.sock"
    async with SchedulerClient(endpoint, READY, rank=0) as client:
        scheduler = ScriptedScheduler(endpoint)
        try:
            await scheduler.welcome(epoch=1)
            assert await client.welcomed() == 1
        finally:
            scheduler.close()


async def test_a_refusal_ends_the_worker_with_its_reason(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.receive("ready")
        refused = step_pb2.WorkerRefused(reason="block_size: the worker has 8, the group 16")
        await scheduler.send(step_pb2.SchedulerFrame(refused=refused))
        with pytest.raises(RefusedByScheduler, match="the worker has 8, the group 16"):
            await client.welcomed()


async def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(StartupError, match="--scheduler-endpoint nonsense"):
        SchedulerClient("nonsense", READY, rank=0)


def mutated(frame: bytes) -> st.SearchStrategy[bytes]:
    """Frames that differ from a valid one in a byte, or end early."""
    one_byte = st.tuples(st.integers(0, len(frame) - 1), st.integers(0, 255)).map(
        lambda change: frame[: change[0]] + bytes([change[1]]) + frame[change[0] + 1 :]
    )
    return st.one_of(one_byte, st.integers(0, len(frame)).map(lambda end: frame[:end]))


OLD_PLAN = step_pb2.SchedulerFrame(plan=plan(9, [(1, 2, 1)], epoch=3)).SerializeToString()
garbage = st.one_of(
    st.binary(max_size=64).map(lambda body: [body]),
    st.lists(st.binary(max_size=8), min_size=2, max_size=3),
    mutated(OLD_PLAN).map(lambda body: [body]),
)


def is_harmless(parts: list[bytes]) -> bool:
    """Whether the frame is not, by chance, one that a scheduler may send."""
    frame = step_pb2.SchedulerFrame()
    try:
        frame.ParseFromString(parts[0] if len(parts) == 1 else b"\xff")
    except Exception:  # noqa: BLE001 - whatever it raises, it is no frame
        return True
    is_current = frame.plan.epoch == 10 or frame.welcome.epoch > 10
    return not is_current and frame.WhichOneof("message") != "refused"


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(garbage.filter(is_harmless), min_size=1, max_size=30))
async def test_garbage_disturbs_nothing(
    tmp_path_factory: pytest.TempPathFactory, frames: list[list[bytes]]
) -> None:
    async with connected(tmp_path_factory.mktemp("s")) as (scheduler, client):
        await scheduler.welcome(epoch=10)
        await client.welcomed()
        await scheduler.send_plan(1, epoch=10)
        for parts in frames:
            await scheduler.send_raw(*parts)
        await scheduler.send_plan(2, epoch=10)
        assert [(await client.next_plan()).step_id for _ in range(2)] == [1, 2]
        client.send_result(step_pb2.StepResult(epoch=10, step_id=2))
        assert (await scheduler.receive("result")).result.step_id == 2


async def test_broken_frames_are_counted(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.welcome(epoch=1)
        await scheduler.send_raw(b"\xff\xff")
        await scheduler.send_raw(b"")
        await scheduler.send_raw(b"one", b"two")
        await scheduler.send_plan(1, epoch=1)
        await client.next_plan()
        assert client.num_broken_frames == 3


async def test_a_plan_is_known_to_be_there_before_it_is_taken(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.welcome(epoch=1)
        assert await client.welcomed() == 1
        assert not await client.has_plan()
        await scheduler.send_plan(1, epoch=1)
        while not await client.has_plan():
            await asyncio.sleep(0.001)
        assert (await client.next_plan_at_once()).step_id == 1


async def test_plans_come_while_another_thread_sends_results(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.welcome(epoch=1)
        for step_id in range(1, 200):
            await scheduler.send_plan(step_id, epoch=1)
            result = step_pb2.StepResult(epoch=1, step_id=step_id)
            _, received = await asyncio.gather(
                asyncio.to_thread(client.send_result, result), client.next_plan()
            )
            assert received.step_id == step_id
            assert (await scheduler.receive("result")).result.step_id == step_id


async def test_an_interruption_is_raised_before_any_plan(tmp_path: Path) -> None:
    async with connected(tmp_path) as (scheduler, client):
        await scheduler.welcome(epoch=1)
        await client.welcomed()
        waiting = asyncio.create_task(client.next_plan())
        await asyncio.sleep(0)
        await asyncio.to_thread(client.interrupt, ValueError("the device is lost"))
        with pytest.raises(ValueError, match="the device is lost"):
            await waiting
        await scheduler.send_plan(1, epoch=1)
        while not await client.has_plan():
            await asyncio.sleep(0.001)
        client.interrupt(ValueError("again"))
        with pytest.raises(ValueError, match="again"):
            await client.next_plan()
