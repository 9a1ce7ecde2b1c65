"""Over TCP only workers with a known key reach the scheduler; of all others there is a log line."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
import structlog
import zmq
from prometheus_client import CollectorRegistry

from octavo.curve import CurveKeys, new_key_pair
from octavo.scheduler.metrics import StepTimes
from octavo.scheduler.worker_client import WorkerClient
from octavo.startup import StartupError
from octavo.v1 import step_pb2
from octavo.worker.scheduler_client import SchedulerClient
from tests.end_to_end.cluster import free_port
from tests.scheduler.socket_worker import TIMEOUT_S, SocketWorker

SCHEDULER_PUBLIC, SCHEDULER_SECRET = new_key_pair()
WORKER_PUBLIC, WORKER_SECRET = new_key_pair()
OTHER_PUBLIC, OTHER_SECRET = new_key_pair()

OF_SCHEDULER = CurveKeys(SCHEDULER_SECRET, frozenset({WORKER_PUBLIC}))
OF_WORKER = CurveKeys(WORKER_SECRET, frozenset({SCHEDULER_PUBLIC}))
UNKNOWN = CurveKeys(OTHER_SECRET, frozenset({SCHEDULER_PUBLIC}))
MISTAKEN = CurveKeys(WORKER_SECRET, frozenset({OTHER_PUBLIC}))

PEER_ENDED_IT = "the peer ended it; do both ends have each other's key?"

Log = list[MutableMapping[str, Any]]


@asynccontextmanager
async def guarded() -> AsyncIterator[tuple[WorkerClient, str, Log]]:
    """A scheduler's end on TCP with keys, its address, and its log."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with structlog.testing.capture_logs() as log:
        times = StepTimes(CollectorRegistry())
        with closing(WorkerClient(endpoint, times, OF_SCHEDULER)) as workers:
            async with asyncio.timeout(TIMEOUT_S):
                yield workers, endpoint, log


@asynccontextmanager
async def joined(workers: WorkerClient, endpoint: str) -> AsyncIterator[SchedulerClient]:
    ready = SocketWorker(endpoint).ready
    async with SchedulerClient(endpoint, ready, rank=0, keys=OF_WORKER) as client:
        assert await client.welcomed() == 1
        await workers.ready()
        yield client


async def logged(log: Log, *reasons: str) -> MutableMapping[str, Any]:
    """Wait for the line of a worker that was turned away for one of these reasons."""
    while True:
        for entry in log:
            if entry["event"] == "turned a worker away" and entry["reason"] in reasons:
                return entry
        await asyncio.sleep(0.005)


@asynccontextmanager
async def intruder(endpoint: str, keys: CurveKeys | None) -> AsyncIterator[None]:
    """A peer that sends a perfect WorkerReady as soon as a connection would take it."""
    worker = SocketWorker(endpoint)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IDENTITY, f"0-0-{worker.ready.incarnation:x}".encode())
        if keys is not None:
            keys.guard_caller(socket)
        socket.connect(endpoint)
        socket.send(step_pb2.WorkerFrame(ready=worker.ready).SerializeToString(), zmq.NOBLOCK)
        yield
    context.term()


async def test_a_worker_with_a_known_key_is_served() -> None:
    async with guarded() as (workers, endpoint, log), joined(workers, endpoint) as client:
        workers.send(step_pb2.StepPlan(epoch=1, step_id=1))
        assert (await client.next_plan()).step_id == 1
        client.send_result(step_pb2.StepResult(epoch=1, step_id=1))
        assert (await workers.result()).step_id == 1
        assert not [entry for entry in log if entry["log_level"] in ("warning", "error")]


@pytest.mark.parametrize(
    ("keys", "reasons"),
    [
        (UNKNOWN, ["its key is not in --curve-peer-keys-file"]),
        (MISTAKEN, ["the peer knows this end by another public key"]),
        # Which one depends on which end sees first that they do not match.
        (None, ["one end uses CURVE keys and the other does not", PEER_ENDED_IT]),
    ],
    ids=["unknown key", "mistaken about the scheduler", "no key"],
)
async def test_nothing_of_a_stranger_gets_in_while_the_good_worker_is_served_on(
    keys: CurveKeys | None, reasons: list[str]
) -> None:
    async with guarded() as (workers, endpoint, log), joined(workers, endpoint) as client:
        async with intruder(endpoint, keys):
            assert await logged(log, *reasons)
            for step_id in (1, 2):
                workers.send(step_pb2.StepPlan(epoch=1, step_id=step_id))
                assert (await client.next_plan()).step_id == step_id
                client.send_result(step_pb2.StepResult(epoch=1, step_id=step_id))
                assert (await workers.result()).step_id == step_id
        # It would have taken the good worker's place.
        assert len([entry for entry in log if entry["event"] == "worker joined"]) == 1
        assert workers.broken.count == workers.num_stale_frames == 0


async def test_the_log_names_the_unknown_key_so_that_an_operator_can_allow_it() -> None:
    async with guarded() as (_, endpoint, log), intruder(endpoint, UNKNOWN):
        entry = await logged(log, "its key is not in --curve-peer-keys-file")
        assert entry["key"] == OTHER_PUBLIC.decode()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (UNKNOWN, "the key of this end is not in --curve-peer-keys-file of the other"),
        (None, "one end uses CURVE keys and the other does not"),
    ],
    ids=["unknown key", "no key"],
)
async def test_a_worker_that_is_turned_away_ends_and_says_why(
    keys: CurveKeys | None, message: str
) -> None:
    async with guarded() as (_, endpoint, _log):
        ready = SocketWorker(endpoint).ready
        async with SchedulerClient(endpoint, ready, rank=0, keys=keys) as client:
            with pytest.raises(StartupError, match=message):
                await client.welcomed()


async def test_a_worker_that_is_mistaken_about_the_scheduler_says_so_and_tries_again() -> None:
    async with guarded() as (_, endpoint, log):
        ready = SocketWorker(endpoint).ready
        async with SchedulerClient(endpoint, ready, rank=0, keys=MISTAKEN) as client:
            welcome = asyncio.create_task(client.welcomed())
            while not any(PEER_ENDED_IT in entry["event"] for entry in log):
                await asyncio.sleep(0.005)
            assert not welcome.done()
            welcome.cancel()
