"""The shell around the scheduler's real core: loop, sessions, socket; all in the test's loop."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from octavo.scheduler.metrics import StepTimes
from octavo.scheduler.scheduler import Scheduler
from octavo.scheduler.server import model_info, scheduler_config
from octavo.scheduler.sessions import RouterSession, RouterSessions
from octavo.scheduler.settings import SchedulerSettings
from octavo.scheduler.step_loop import StepLoop
from octavo.scheduler.worker_client import WorkerClient
from octavo.v1 import common_pb2, scheduling_pb2
from tests.scheduler.socket_worker import TIMEOUT_S, SocketWorker

ROUTER_ID = b"router-a".ljust(16)

_keys = itertools.count(1)


def submit_request(
    prompt: Sequence[int],
    *,
    max_tokens: int = 6,
    n: int = 1,
    seed: int = 0,
    timeout_ns: int | None = None,
    router_id: bytes = ROUTER_ID,
) -> scheduling_pb2.SubmitRequest:
    """Return a request with a fresh key; a seed other than 0 makes it sample."""
    return scheduling_pb2.SubmitRequest(
        request_key=next(_keys).to_bytes(16),
        router_id=router_id,
        prompt_token_ids=prompt,
        n=n,
        seeds=[seed + i for i in range(n)],
        sampling=common_pb2.SamplingParams(temperature=1.0 if seed else 0.0),
        max_tokens=max_tokens,
        stop_token_ids=[2],
        timeout_ns=timeout_ns,
    )


@dataclass
class Streams:
    """What one router has received. Positions are checked as a router checks them."""

    tokens: dict[tuple[bytes, int], list[int]] = field(default_factory=dict)
    finished: dict[tuple[bytes, int], scheduling_pb2.OutputFinished] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, response: scheduling_pb2.AttachResponse) -> None:
        outputs = response.outputs
        token_ids = iter(outputs.token_ids)
        for key, index, first, count in zip(
            outputs.request_key,
            outputs.output_index,
            outputs.first_position,
            outputs.num_tokens,
            strict=True,
        ):
            stream = self.tokens.setdefault((key, index), [])
            assert first == len(stream), "a token is lost or doubled"
            stream += itertools.islice(token_ids, count)
        for finished in outputs.finished:
            place = (finished.request_key, finished.output_index)
            assert place not in self.finished, "an output ended twice"
            self.finished[place] = finished
        self._changed.set()

    async def until_tokens(self, request: scheduling_pb2.SubmitRequest, count: int) -> None:
        """Wait until the first output has so many tokens."""
        while len(self.tokens.get((request.request_key, 0), ())) < count:
            await self._change()

    async def until_finished(
        self, *requests: scheduling_pb2.SubmitRequest
    ) -> list["common_pb2.FinishReason"]:
        """Wait for the end of every output; return why each ended."""
        places = [(r.request_key, i) for r in requests for i in range(r.n)]
        while not all(place in self.finished for place in places):
            await self._change()
        return [self.finished[place].reason for place in places]

    async def _change(self) -> None:
        self._changed.clear()
        async with asyncio.timeout(TIMEOUT_S):
            await self._changed.wait()


@dataclass
class TestEngine:
    """A running step loop with one attached router."""

    __test__ = False

    loop: StepLoop
    scheduler: Scheduler
    sessions: RouterSessions
    session: RouterSession
    streams: Streams
    model: scheduling_pb2.ModelInfo

    async def submit(
        self, *requests: scheduling_pb2.SubmitRequest
    ) -> tuple[scheduling_pb2.SubmitRequest, ...]:
        for request in requests:
            await self.loop.submit(request)
        return requests

    def tokens(self, request: scheduling_pb2.SubmitRequest) -> list[list[int]]:
        """Return the tokens of each output so far."""
        return [self.streams.tokens.get((request.request_key, i), []) for i in range(request.n)]

    def check_all_blocks_are_free(self) -> None:
        load = self.scheduler.load()
        assert (load.num_running, load.num_waiting) == (0, 0)
        assert load.num_free_blocks == load.num_blocks
        self.scheduler.check_invariants()


def scheduler_settings(**changes: object) -> SchedulerSettings:
    values: dict[str, object] = {
        "listen": "",
        "worker_endpoint": "",
        "served_model_name": ("mock",),
        **changes,
    }
    return SchedulerSettings(**values)  # type: ignore[arg-type]


@asynccontextmanager
async def running_engine(
    directory: Path, *, overlapped: bool = True, max_queued_bytes: int = 1 << 20
) -> AsyncIterator[tuple[TestEngine, SocketWorker]]:
    """Run the loop with a worker that has joined, and executes nothing by itself."""
    endpoint = f"ipc://{directory}/workers.sock"
    times = StepTimes(CollectorRegistry())
    with closing(WorkerClient(endpoint, times)) as workers:
        async with SocketWorker(endpoint) as worker, asyncio.timeout(2 * TIMEOUT_S):
            await worker.join()
            ready = await workers.ready()
            settings = scheduler_settings()
            config = scheduler_config(settings, ready, workers.epoch)
            scheduler = Scheduler(config)
            sessions = RouterSessions(max_queued_bytes)
            hello = scheduling_pb2.Hello(router_id=ROUTER_ID, incarnation=1)
            session, streams = sessions.attach(hello), Streams()
            loop = StepLoop(scheduler, workers, sessions, times, overlapped=overlapped)
            tasks = [
                asyncio.create_task(loop.run()),
                asyncio.create_task(session.send_all(streams.receive)),
            ]
            engine = TestEngine(
                loop, scheduler, sessions, session, streams, model_info(settings, ready, config)
            )
            try:
                yield engine, worker
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task


@asynccontextmanager
async def executing(worker: SocketWorker) -> AsyncIterator[None]:
    """Let the worker execute plans by itself while the block runs."""
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
