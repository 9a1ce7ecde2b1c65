"""The worker's end of the socket to its scheduler, served by a thread of its own.

So heartbeats go on during a long forward pass, and the next plan is decoded while this one runs.

    step loop (main thread)                     I/O thread
    next_plan()    ◄─── queue ◄──────────────── DEALER: Welcome, Refused, StepPlan, Heartbeat
    send_result()  ───► in-process PAIR ──────► DEALER: StepResult, PlanRefused
                                                DEALER: WorkerReady until answered, then Heartbeat
"""

import asyncio
import contextlib
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from types import TracebackType

import structlog
import zmq
from google.protobuf.message import DecodeError

from octavo.curve import CurveKeys
from octavo.frames import BEAT_S, BrokenFrames, set_limits
from octavo.handshake_monitor import BROKEN, REFUSED, HandshakeMonitor
from octavo.log_limit import LogLimit
from octavo.startup import StartupError
from octavo.v1 import step_pb2
from octavo.version import PROTOCOL_VERSION

_READY_PERIOD_S = 0.1
_CLOSING_MS = 200
_CLOSE = b""
_END_WITHIN_S = 5.0
"""Seconds that a worker which was refused has to end by itself: its main thread may hang."""


class SchedulerClient:
    """Says that the worker is ready, then brings plans and takes results.

    One scheduler leads at a time: the last that welcomed the worker with an epoch greater than any
    before. Frames of another epoch change nothing but a counter.
    Use: `async with SchedulerClient(...) as client`; all methods belong to the event loop's thread.
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
        self._ready = step_pb2.WorkerReady()
        self._ready.CopyFrom(ready)
        self._ready.protocol_version = PROTOCOL_VERSION
        self._ready.incarnation = secrets.randbits(63)
        self._ready.rank = rank
        self._context = zmq.Context()
        self._results = self._context.socket(zmq.PAIR)
        address = f"inproc://results-{self._ready.incarnation}"
        self._results.bind(address)
        self._link = _Link(self._context, endpoint, address, self._ready, keys)
        self._thread = threading.Thread(target=self._link.run, name="scheduler-io", daemon=True)

    async def __aenter__(self) -> "SchedulerClient":
        loop = asyncio.get_running_loop()
        self._received: asyncio.Queue[_Received] = asyncio.Queue()
        self._link.deliver = lambda item: loop.call_soon_threadsafe(self._received.put_nowait, item)
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._hand_over(_CLOSE)
        self._thread.join()
        self._results.close()
        self._context.term()

    async def welcomed(self) -> int:
        """Wait until a scheduler leads this worker; return its epoch."""
        while not isinstance(item := await self._next(), step_pb2.WorkerWelcome):
            pass
        return item.epoch

    async def next_plan(self) -> step_pb2.StepPlan:
        """Return the next plan, in the order sent."""
        while not isinstance(item := await self._next(), step_pb2.StepPlan):
            pass
        return item

    def send_result(self, result: step_pb2.StepResult) -> None:
        self._hand_over(step_pb2.WorkerFrame(result=result).SerializeToString())

    def refuse_plan(self, plan: step_pb2.StepPlan, reason: str) -> None:
        refused = step_pb2.PlanRefused(epoch=plan.epoch, step_id=plan.step_id, reason=reason)
        self._hand_over(step_pb2.WorkerFrame(plan_refused=refused).SerializeToString())

    def set_phase(self, phase: step_pb2.WorkerPhase, last_step_id: int) -> None:
        """Tell the heartbeats what the step loop does from now on."""
        self._link.activity = (phase, last_step_id, time.monotonic_ns())

    @property
    def num_broken_frames(self) -> int:
        return self._link.broken.count

    @property
    def num_stale_frames(self) -> int:
        """Frames of a scheduler that does not lead this worker."""
        return self._link.num_stale

    def _hand_over(self, frame: bytes) -> None:
        # Refused only if the thread has ended; its error is in the queue then.
        with contextlib.suppress(zmq.Again):
            self._results.send(frame, zmq.NOBLOCK)

    async def _next(self) -> "_Received":
        item = await self._received.get()
        if isinstance(item, Exception):
            raise item
        return item


_Received = step_pb2.WorkerWelcome | step_pb2.StepPlan | Exception


class _Link:
    """What the I/O thread does. All but `activity` and `deliver` is that thread's own."""

    deliver: Callable[[_Received], object]

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        endpoint: str,
        results_address: str,
        ready: step_pb2.WorkerReady,
        keys: CurveKeys | None,
    ) -> None:
        self._endpoint = endpoint
        self._ready = ready
        self._socket = context.socket(zmq.DEALER)
        set_limits(self._socket)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(
            zmq.IDENTITY, f"{ready.stage}-{ready.rank}-{ready.incarnation:x}".encode()
        )
        self._handshakes = HandshakeMonitor(self._socket, BROKEN | REFUSED)
        try:
            if keys is not None:
                keys.guard_caller(self._socket)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            context.destroy()
            raise StartupError(f"--scheduler-endpoint {endpoint}: {error.strerror}") from error
        self._results = context.socket(zmq.PAIR)
        self._results.connect(results_address)
        self._epoch = 0
        self._is_led = False
        self._end_by_s = math.inf
        self.activity = (step_pb2.WORKER_PHASE_IDLE, 0, time.monotonic_ns())
        self.broken = BrokenFrames()
        self.num_stale = 0
        self._log = structlog.get_logger()
        self._limit = LogLimit()

    def run(self) -> None:
        """Serve the socket until told to close."""
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - the step loop raises it and ends the process
            self.deliver(error)
        finally:
            self._handshakes.close()
            # The last result may still be on its way; a scheduler that is gone is not waited for.
            self._socket.close(linger=_CLOSING_MS)
            self._results.close()

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._results, zmq.POLLIN)
        poller.register(self._handshakes.socket, zmq.POLLIN)
        next_beat_s = time.monotonic()
        while True:
            if (left_s := next_beat_s - time.monotonic()) <= 0:
                self._beat()
                left_s = BEAT_S if self._is_led else _READY_PERIOD_S
                next_beat_s = time.monotonic() + left_s
                self._end_if_hung()
            readable = dict(poller.poll(math.ceil(left_s * 1000)))
            if self._results in readable:
                if (frame := self._results.recv()) == _CLOSE:
                    return
                self._send(frame)
            if self._socket in readable:
                self._receive(self._socket.recv_multipart())
            if self._handshakes.socket in readable:
                self._receive_handshake_failures()

    def _beat(self) -> None:
        if not self._is_led:
            self._ready.last_epoch = self._epoch
            self._send(step_pb2.WorkerFrame(ready=self._ready).SerializeToString())
            return
        phase, last_step_id, since_ns = self.activity
        heartbeat = step_pb2.Heartbeat(
            epoch=self._epoch,
            last_step_id=last_step_id,
            phase=phase,
            phase_ns=time.monotonic_ns() - since_ns,
        )
        self._send(step_pb2.WorkerFrame(heartbeat=heartbeat).SerializeToString())

    def _end_if_hung(self) -> None:
        """End the process if the step loop does not hear that it has to; someone starts another."""
        if time.monotonic() > self._end_by_s:
            self._log.error("refused by the scheduler, and the step does not end: exiting")
            os._exit(1)

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            # No scheduler is connected. The next one plans everything anew, so nothing is lost.
            self._log.debug("no scheduler to send to", num_bytes=len(frame))

    def _receive_handshake_failures(self) -> None:
        for failure in self._handshakes.failures():
            text = f"--scheduler-endpoint {self._endpoint}: {failure.reason}"
            if failure.is_final:
                raise StartupError(text)
            if self._limit.allows(text):
                self._log.warning(text)

    def _receive(self, parts: list[bytes]) -> None:
        frame = step_pb2.SchedulerFrame()
        try:
            (body,) = parts
            frame.ParseFromString(body)
        except (ValueError, DecodeError) as error:
            self.broken.add(b"scheduler", str(error))
            return
        match frame.WhichOneof("message"):
            case "plan":
                self._receive_plan(frame.plan)
            case "heartbeat":
                # Not ours: another scheduler has taken the address over. It wants our WorkerReady.
                self._is_led = self._epoch > 0 and frame.heartbeat.epoch == self._epoch
            case "welcome":
                self._receive_welcome(frame.welcome)
            case "refused":
                self._end_by_s = min(self._end_by_s, time.monotonic() + _END_WITHIN_S)
                self.deliver(RefusedByScheduler(frame.refused.reason))
            case _:
                self.broken.add(b"scheduler", "not a message that workers know")

    def _receive_plan(self, plan: step_pb2.StepPlan) -> None:
        if plan.epoch == self._epoch > 0:
            self.deliver(plan)
        else:
            self.num_stale += 1

    def _receive_welcome(self, welcome: step_pb2.WorkerWelcome) -> None:
        if welcome.epoch > self._epoch:
            self._epoch = welcome.epoch
            self._is_led = True
            self.deliver(welcome)
        else:
            self.num_stale += 1


class RefusedByScheduler(StartupError):
    """The scheduler does not take this worker; the text says what differs."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the scheduler refused this worker: {reason}")
