"""A worker in the test's own event loop: a real socket, the mock's tokens, each step by hand."""

import asyncio
import itertools
from types import TracebackType

import zmq
import zmq.asyncio

from octavo.v1 import step_pb2
from octavo.version import PROTOCOL_VERSION
from octavo.worker.mock_runner import MockRunner
from octavo.worker.settings import WorkerSettings

TIMEOUT_S = 30.0

SETTINGS = WorkerSettings(
    scheduler_endpoint="",
    mock=True,
    block_size=4,
    max_model_len=64,
    max_num_seqs=4,
    max_num_batched_tokens=16,
    num_gpu_blocks_override=32,
    mock_vocab_size=1000,
    mock_eos_token_id=2,
)

_incarnations = itertools.count(1)


class SocketWorker:
    """Use: `async with SocketWorker(endpoint) as worker`.

    Attributes:
        ready: what it says of itself; a test may change it before `join`.
        events: ("plan" or "result", step_id) in the order received and sent.
    """

    def __init__(self, endpoint: str) -> None:
        self.runner = MockRunner(SETTINGS, poison=True)
        self.ready = self.runner.describe()
        self.ready.protocol_version = PROTOCOL_VERSION
        self.ready.incarnation = next(_incarnations)
        self.events: list[tuple[str, int]] = []
        self._endpoint = endpoint

    async def __aenter__(self) -> "SocketWorker":
        ready = self.ready
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(
            zmq.IDENTITY, f"{ready.stage}-{ready.rank}-{ready.incarnation:x}".encode()
        )
        self._socket.connect(self._endpoint)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.vanish()

    def vanish(self) -> None:
        """Close the connection without a word, as a killed process does."""
        self._context.destroy(linger=0)

    async def send(self, frame: step_pb2.WorkerFrame) -> None:
        await self.send_raw(frame.SerializeToString())

    async def send_raw(self, *parts: bytes) -> None:
        await self._socket.send_multipart(parts)

    async def receive(self) -> step_pb2.SchedulerFrame:
        async with asyncio.timeout(TIMEOUT_S):
            (body,) = await self._socket.recv_multipart()
        return step_pb2.SchedulerFrame.FromString(body)

    async def receive_kind(self, kind: str) -> step_pb2.SchedulerFrame:
        """Return the next frame of this kind, passing over the others."""
        while True:
            frame = await self.receive()
            if frame.WhichOneof("message") == kind:
                return frame

    async def join(self) -> int:
        """Say that it is ready, and be welcomed; returns the epoch."""
        await self.send(step_pb2.WorkerFrame(ready=self.ready))
        return (await self.receive_kind("welcome")).welcome.epoch

    async def join_in_vain(self) -> str:
        """Say that it is ready, and be refused; returns why."""
        await self.send(step_pb2.WorkerFrame(ready=self.ready))
        return (await self.receive_kind("refused")).refused.reason

    async def beat(
        self, epoch: int, phase: step_pb2.WorkerPhase | None = None, phase_ns: int = 0
    ) -> None:
        heartbeat = step_pb2.Heartbeat(epoch=epoch, phase=phase, phase_ns=phase_ns)
        await self.send(step_pb2.WorkerFrame(heartbeat=heartbeat))

    async def next_plan(self) -> step_pb2.StepPlan:
        plan = (await self.receive_kind("plan")).plan
        self.events.append(("plan", plan.step_id))
        return plan

    async def execute(self, plan: step_pb2.StepPlan) -> None:
        """Run a plan and send its result."""
        result = self.runner.execute(plan)
        self.events.append(("result", result.step_id))
        await self.send(step_pb2.WorkerFrame(result=result))

    async def run(self) -> None:
        """Execute plans until cancelled."""
        while True:
            await self.execute(await self.next_plan())
