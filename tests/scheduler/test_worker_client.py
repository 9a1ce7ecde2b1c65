"""The scheduler's socket to its workers: joining, results, losses, and garbage."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from octavo.frames import LOST_AFTER_BEATS
from octavo.scheduler import worker_client
from octavo.scheduler.metrics import StepTimes
from octavo.scheduler.worker_client import WorkerClient, WorkersLost
from octavo.startup import StartupError
from octavo.v1 import step_pb2
from tests.scheduler.socket_worker import TIMEOUT_S, SocketWorker

TIMES = StepTimes(CollectorRegistry())


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/workers.sock"


@pytest.fixture
async def workers(endpoint: str) -> AsyncIterator[WorkerClient]:
    with closing(WorkerClient(endpoint, TIMES)) as client:
        async with asyncio.timeout(TIMEOUT_S):
            yield client


@asynccontextmanager
async def joined(workers: WorkerClient, endpoint: str) -> AsyncIterator[SocketWorker]:
    async with SocketWorker(endpoint) as worker:
        await worker.join()
        await workers.ready()
        yield worker


def plan(step_id: int, epoch: int = 1) -> step_pb2.StepPlan:
    return step_pb2.StepPlan(epoch=epoch, step_id=step_id, groups=[step_pb2.GroupBlocks()])


async def test_the_epoch_is_greater_than_any_that_the_worker_has_served(
    workers: WorkerClient, endpoint: str
) -> None:
    async with SocketWorker(endpoint) as worker:
        worker.ready.last_epoch = 6
        assert await worker.join() == 7
        assert (await workers.ready()).model_hash == worker.ready.model_hash
        assert workers.epoch == 7


async def test_plans_go_out_and_results_come_back_in_order(
    workers: WorkerClient, endpoint: str
) -> None:
    async with joined(workers, endpoint) as worker:
        workers.send(plan(1))
        workers.send(plan(2))
        for _ in range(2):
            await worker.execute(await worker.next_plan())
        assert [(await workers.result()).step_id for _ in range(2)] == [1, 2]


async def test_a_worker_of_another_protocol_is_refused_and_the_next_may_join(
    workers: WorkerClient, endpoint: str
) -> None:
    async with SocketWorker(endpoint) as old, SocketWorker(endpoint) as new:
        old.ready.protocol_version = 77
        assert "speaks protocol version 77" in await old.join_in_vain()
        await new.join()
        await workers.ready()


async def test_a_worker_that_is_refused_again_and_again_does_not_fill_the_log(
    workers: WorkerClient, endpoint: str
) -> None:
    with capture_logs() as log:
        async with SocketWorker(endpoint) as old:
            old.ready.protocol_version = 77
            for _ in range(20):
                await old.join_in_vain()
    assert 1 <= len([line for line in log if line["event"] == "refused a worker"]) < 20


async def test_ready_said_twice_is_welcomed_twice_and_disturbs_nothing(
    workers: WorkerClient, endpoint: str
) -> None:
    async with joined(workers, endpoint) as worker:
        workers.send(plan(1))
        assert await worker.join() == 1
        await worker.send(step_pb2.WorkerFrame(result=step_pb2.StepResult(epoch=1, step_id=1)))
        assert (await workers.result()).step_id == 1


async def test_each_side_hears_the_other_beat(
    workers: WorkerClient, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_client, "BEAT_S", 0.01)
    async with joined(workers, endpoint) as worker:
        for _ in range(3 * LOST_AFTER_BEATS):
            assert (await worker.receive_kind("heartbeat")).heartbeat.epoch == 1
            await worker.beat(1)
        workers.send(plan(1))


async def test_a_silent_worker_is_lost_with_its_last_words(
    workers: WorkerClient, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(workers, endpoint) as worker:
        workers.send(plan(4))
        await worker.next_plan()
        await worker.beat(1, step_pb2.WORKER_PHASE_FORWARD)
        monkeypatch.setattr(worker_client, "BEAT_S", 0.01)
        with pytest.raises(WorkersLost, match="worker 0-0: silent for .* last seen forward"):
            await workers.result()


async def test_a_long_step_is_no_silence(
    workers: WorkerClient, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(workers, endpoint) as worker:
        workers.send(plan(1))
        step_plan = await worker.next_plan()
        monkeypatch.setattr(worker_client, "BEAT_S", 0.01)
        for _ in range(3 * LOST_AFTER_BEATS):
            await worker.receive_kind("heartbeat")
            await worker.beat(1, step_pb2.WORKER_PHASE_FORWARD)
        await worker.execute(step_plan)
        assert (await workers.result()).step_id == 1


async def test_a_worker_that_hangs_is_lost_though_it_beats(endpoint: str) -> None:
    with closing(WorkerClient(endpoint, TIMES, step_timeout_s=0.0)) as workers:
        async with asyncio.timeout(TIMEOUT_S), joined(workers, endpoint) as worker:
            workers.send(plan(1))
            await worker.next_plan()
            await worker.beat(1, step_pb2.WORKER_PHASE_FORWARD, phase_ns=10**9)
            with pytest.raises(WorkersLost, match="worker 0-0: stuck for .* last seen forward"):
                await workers.result()
            assert "stuck" in (await worker.receive_kind("refused")).refused.reason


async def test_a_worker_whose_connection_ends_is_lost(
    workers: WorkerClient, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with joined(workers, endpoint) as worker:
        workers.send(plan(1))
        worker.vanish()
        monkeypatch.setattr(worker_client, "BEAT_S", 0.01)
        with pytest.raises(WorkersLost):
            await workers.result()


async def test_after_a_loss_nothing_is_planned_until_the_new_worker_is_known(
    workers: WorkerClient, endpoint: str
) -> None:
    async with joined(workers, endpoint), SocketWorker(endpoint) as new:
        workers.send(plan(1))
        await new.join()
        with pytest.raises(WorkersLost, match="a newer worker has taken its place"):
            await workers.result()
        with pytest.raises(WorkersLost):
            workers.send(plan(2))
        await workers.ready()
        workers.send(plan(3))
        await new.execute(await new.next_plan())
        assert (await workers.result()).step_id == 3


async def test_the_worker_that_was_replaced_is_told_and_not_listened_to(
    workers: WorkerClient, endpoint: str
) -> None:
    async with joined(workers, endpoint) as old, SocketWorker(endpoint) as new:
        await new.join()
        refused = (await old.receive_kind("refused")).refused
        assert refused.reason == "a newer worker has taken its place"
        await workers.ready()
        await old.send(step_pb2.WorkerFrame(result=step_pb2.StepResult(epoch=1, step_id=1)))
        await old.beat(1)
        assert (await old.receive_kind("heartbeat")).heartbeat.epoch == 0
        assert workers.num_stale_frames == 2
        workers.send(plan(1))
        await new.execute(await new.next_plan())
        assert (await workers.result()).epoch == 1


async def test_a_worker_of_an_earlier_scheduler_is_asked_to_join(
    workers: WorkerClient, endpoint: str
) -> None:
    async with SocketWorker(endpoint) as worker:
        await worker.beat(8)
        assert (await worker.receive_kind("heartbeat")).heartbeat.epoch == 0
        worker.ready.last_epoch = 8
        assert await worker.join() == 9


async def test_results_of_another_epoch_change_nothing_but_a_counter(
    workers: WorkerClient, endpoint: str
) -> None:
    async with joined(workers, endpoint) as worker:
        workers.send(plan(1))
        for epoch in (0, 2, 1):
            result = step_pb2.StepResult(epoch=epoch, step_id=1)
            await worker.send(step_pb2.WorkerFrame(result=result))
        assert (await workers.result()).epoch == 1
        assert workers.num_stale_frames == 2


async def test_a_refused_plan_loses_the_worker_and_says_why(
    workers: WorkerClient, endpoint: str
) -> None:
    async with joined(workers, endpoint) as worker:
        workers.send(plan(5))
        refused = step_pb2.PlanRefused(epoch=1, step_id=5, reason="row 3 is not in use")
        await worker.send(step_pb2.WorkerFrame(plan_refused=refused))
        with pytest.raises(WorkersLost, match="it refused step 5: row 3 is not in use"):
            await workers.result()
        assert "step 5" in (await worker.receive_kind("refused")).refused.reason


async def test_a_worker_that_makes_no_sense_is_sent_away(
    workers: WorkerClient, endpoint: str
) -> None:
    async with joined(workers, endpoint) as worker:
        workers.refuse("its result of step 1 is wrong")
        assert (await worker.receive_kind("refused")).refused.reason.endswith("is wrong")
        with pytest.raises(WorkersLost, match="its result of step 1 is wrong"):
            workers.send(plan(2))


async def test_a_stranger_cannot_take_a_workers_place(workers: WorkerClient, endpoint: str) -> None:
    async with joined(workers, endpoint) as worker, SocketWorker(endpoint) as stranger:
        stranger.ready.incarnation = 10**6
        await stranger.send(step_pb2.WorkerFrame(ready=stranger.ready))
        stranger.ready.protocol_version = 0
        workers.send(plan(1))
        await worker.execute(await worker.next_plan())
        assert (await workers.result()).step_id == 1
        await _until_read(stranger)
        assert workers.broken.count == 1


async def _until_read(peer: SocketWorker) -> None:
    """Return when the scheduler has read all that the peer has sent it."""
    await peer.beat(999)
    await peer.receive_kind("heartbeat")


def mutated(frame: bytes) -> st.SearchStrategy[bytes]:
    """Frames that differ from a valid one in a byte, or end early."""
    one_byte = st.tuples(st.integers(0, len(frame) - 1), st.integers(0, 255)).map(
        lambda change: frame[: change[0]] + bytes([change[1]]) + frame[change[0] + 1 :]
    )
    return st.one_of(one_byte, st.integers(0, len(frame)).map(lambda end: frame[:end]))


STALE_RESULT = step_pb2.StepResult(epoch=200, step_id=1, token_ids=[3, 300])
READY = step_pb2.WorkerReady(protocol_version=1, incarnation=5, model_hash=bytes(16), block_size=4)
garbage = st.one_of(
    st.binary(max_size=64).map(lambda body: [body]),
    st.lists(st.binary(max_size=8), max_size=3),
    mutated(step_pb2.WorkerFrame(result=STALE_RESULT).SerializeToString()).map(lambda f: [f]),
    mutated(step_pb2.WorkerFrame(ready=READY).SerializeToString()).map(lambda f: [f]),
)


def is_harmless(parts: list[bytes]) -> bool:
    """Whether the frame is not, by chance, one that the worker itself may send."""
    frame = step_pb2.WorkerFrame()
    try:
        frame.ParseFromString(parts[0] if len(parts) == 1 else b"\xff")
    except Exception:  # noqa: BLE001 - whatever it raises, it is no frame
        return True
    return frame.result.epoch != 1 and frame.plan_refused.epoch != 1


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    from_worker=st.lists(garbage.filter(is_harmless), max_size=20),
    from_stranger=st.lists(garbage, max_size=20),
)
async def test_garbage_from_anyone_disturbs_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    from_worker: list[list[bytes]],
    from_stranger: list[list[bytes]],
) -> None:
    endpoint = f"ipc://{tmp_path_factory.mktemp('s')}/w.sock"
    with closing(WorkerClient(endpoint, TIMES)) as workers:
        async with joined(workers, endpoint) as worker, SocketWorker(endpoint) as stranger:
            workers.send(plan(1))
            for parts in from_stranger:
                await stranger.send_raw(*(parts or [b""]))
            for parts in from_worker:
                await worker.send_raw(*(parts or [b""]))
            await worker.execute(await worker.next_plan())
            assert (await workers.result()).step_id == 1


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="/file/s cannot be made: Not a directory"):
        WorkerClient(f"ipc://{tmp_path}/file/s/w.sock", TIMES)


async def test_others_must_not_be_able_to_reach_the_socket(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    with pytest.raises(StartupError, match="others can enter .* run `chmod 700"):
        WorkerClient(f"ipc://{tmp_path}/workers.sock", TIMES)


async def test_the_sockets_directory_is_made_private(tmp_path: Path) -> None:
    with closing(WorkerClient(f"ipc://{tmp_path}/new/workers.sock", TIMES)):
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


async def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    (tmp_path / "workers.sock").mkdir()
    with pytest.raises(StartupError, match="--worker-endpoint .*workers.sock: "):
        WorkerClient(f"ipc://{tmp_path}/workers.sock", TIMES)


async def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        StartupError, match="--worker-endpoint .*: the path is longer than 107 bytes"
    ):
        WorkerClient(f"ipc://{tmp_path}/{'x' * 120}.sock", TIMES)


async def test_encoding_sending_and_decoding_are_timed_once_a_step(endpoint: str) -> None:
    registry = CollectorRegistry()
    with closing(WorkerClient(endpoint, StepTimes(registry))) as workers:
        async with asyncio.timeout(TIMEOUT_S), joined(workers, endpoint) as worker:
            for step_id in (1, 2):
                workers.send(plan(step_id))
                await worker.execute(await worker.next_plan())
                await workers.result()
    for part in ("encode", "send", "decode"):
        count = registry.get_sample_value("octavo_scheduler_step_seconds_count", {"part": part})
        assert count == 2, part
