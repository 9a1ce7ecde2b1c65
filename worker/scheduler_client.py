"""The worker's end of the socket to its scheduler: plans in, results out, heartbeats beside both.

    step loop (event loop's thread)             keeper's thread
    next_plan()    ◄─── Welcome, Refused, StepPlan ───► received each beat, if the step is long
    send_result()  ───► StepResult, PlanRefused
                        WorkerReady until answered, then Heartbeat ◄─── every beat

Both use one socket, under a lock (`scheduler_link.py`), and so does the thread that waits for a
device: none hands a frame to another, and heartbeats go on during a long forward pass.
"""

import asyncio
import secrets
import threading
import time
from types import TracebackType

from octavo.curve import CurveKeys
from octavo.frames import envelope
from octavo.v1 import step_pb2
from octavo.version import PROTOCOL_VERSION

from .scheduler_link import Received, SchedulerLink


class SchedulerClient:
    """Says that the worker is ready, then brings plans and takes results.

    One scheduler leads at a time: the last that welcomed the worker with an epoch greater than any
    before. Frames of another epoch change nothing but a counter.
    Use: `async with SchedulerClient(...) as client`. What is awaited belongs to the event loop's
    thread; answers may be sent from any.
    """

    def __init__(
        self,
        endpoint: str,
        ready: step_pb2.WorkerReady,
        *,
        rank: int,
        keys: CurveKeys | None = None,
    ) -> None:
        """`ready` is what the runner says of itself; the rest of it is filled in here."""
        own = step_pb2.WorkerReady()
        own.CopyFrom(ready)
        own.protocol_version = PROTOCOL_VERSION
        own.incarnation = secrets.randbits(63)
        own.rank = rank
        self._link = SchedulerLink(endpoint, own, keys)
        self._activity = (step_pb2.WORKER_PHASE_IDLE, 0, time.monotonic_ns())
        self._is_closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="scheduler-keeper", daemon=True)

    async def __aenter__(self) -> "SchedulerClient":
        self._loop = asyncio.get_running_loop()
        self._has_received = asyncio.Event()
        self._loop.add_reader(self._link.fileno(), self._receive)
        self._keeper.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._is_closing.set()
        self._keeper.join()
        self._loop.remove_reader(self._link.fileno())
        self._link.close()

    async def welcomed(self) -> int:
        """Wait until a scheduler leads this worker; return its epoch."""
        while not isinstance(item := await self._next(), step_pb2.WorkerWelcome):
            pass
        return item.epoch

    async def next_plan(self) -> step_pb2.StepPlan:
        """Return the next plan, in the order sent, after at least one turn of the event loop."""
        await asyncio.sleep(0)
        return await self._received_plan()

    async def next_plan_at_once(self) -> step_pb2.StepPlan:
        """Return the next plan where no other thread has anything to send.

        Where steps follow one another, a thread that waits in recv() is awake sooner than an event
        loop. It also sees what came in before the socket last became readable.
        """
        await asyncio.sleep(0)
        if not self._link.received:
            self._link.wait_and_receive()
        return await self._received_plan()

    async def has_plan(self) -> bool:
        """Say whether there is something that `next_plan` would return or raise at once."""
        await asyncio.sleep(0)
        if not self._link.received:
            self._link.receive()
        return bool(self._link.received)

    def interrupt(self, error: Exception) -> None:
        """Make `next_plan` raise this, before any plan that has come in."""
        self._link.received.appendleft(error)
        self._loop.call_soon_threadsafe(self._has_received.set)

    def send_result(self, result: step_pb2.StepResult) -> None:
        self._send(envelope(step_pb2.WorkerFrame.RESULT_FIELD_NUMBER, result))

    def refuse_plan(self, plan: step_pb2.StepPlan, reason: str) -> None:
        refused = step_pb2.PlanRefused(epoch=plan.epoch, step_id=plan.step_id, reason=reason)
        self._send(envelope(step_pb2.WorkerFrame.PLAN_REFUSED_FIELD_NUMBER, refused))

    def set_phase(self, phase: step_pb2.WorkerPhase, last_step_id: int) -> None:
        """Tell the heartbeats what the step loop does from now on."""
        self._activity = (phase, last_step_id, time.monotonic_ns())

    @property
    def num_broken_frames(self) -> int:
        return self._link.broken.count

    @property
    def num_stale_frames(self) -> int:
        """Frames of a scheduler that does not lead this worker."""
        return self._link.num_stale

    def _send(self, frame: bytes) -> None:
        if self._link.send(frame):
            # Sending may have taken the edge that says the socket is readable.
            self._loop.call_soon_threadsafe(self._receive)

    async def _received_plan(self) -> step_pb2.StepPlan:
        while not isinstance(item := await self._next(), step_pb2.StepPlan):
            pass
        return item

    async def _next(self) -> Received:
        """Return the next item; raises what is one to raise."""
        while not self._link.received:
            self._has_received.clear()
            await self._has_received.wait()
        item = self._link.received.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    def _receive(self) -> None:
        self._link.receive()
        if self._link.received:
            self._has_received.set()

    def _keep(self) -> None:
        """Beat until told to close."""
        wait_s = 0.0
        try:
            while not self._is_closing.wait(wait_s):
                wait_s = self._link.beat(*self._activity)
                if self._link.received:
                    self._loop.call_soon_threadsafe(self._has_received.set)
        except Exception as error:  # noqa: BLE001 - the step loop raises it and ends the process
            self._link.received.append(error)
            self._loop.call_soon_threadsafe(self._has_received.set)
