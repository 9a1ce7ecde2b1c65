"""The worker's socket to its scheduler: what goes out, and what comes in, put in order."""

import contextlib
import math
import os
import threading
import time
from collections import deque

import structlog
import zmq
from google.protobuf.message import DecodeError

from octavo.curve import CurveKeys
from octavo.frames import BEAT_S, BrokenFrames, set_limits
from octavo.handshake_monitor import BROKEN, REFUSED, HandshakeMonitor
from octavo.log_limit import LogLimit
from octavo.startup import StartupError
from octavo.v1 import step_pb2

_READY_PERIOD_S = 0.1
_NEXT_PLAN_WITHIN_MS = 5
_CLOSING_MS = 200
_END_WITHIN_S = 5.0
"""Seconds that a worker which was refused has to end by itself: its main thread may hang."""

Received = step_pb2.WorkerWelcome | step_pb2.StepPlan | Exception


class RefusedByScheduler(StartupError):
    """The scheduler does not take this worker; the text says what differs."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the scheduler refused this worker: {reason}")


class SchedulerLink:
    """A DEALER socket that several threads use, one at a time.

    libzmq lets a socket go from one thread to another over a full memory fence; the lock that each
    method takes is one. So a plan costs no hop between threads: whoever wants it reads the socket.

    Attributes:
        received: plans and welcomes of the scheduler that leads, refusals; in the order sent.
        broken: frames that are no message to workers.
        num_stale: frames of a scheduler that does not lead this worker.
    """

    def __init__(self, endpoint: str, ready: step_pb2.WorkerReady, keys: CurveKeys | None) -> None:
        """Connect; raises StartupError for an address that is none."""
        self._endpoint = endpoint
        self._ready = ready
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        set_limits(self._socket)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.RCVTIMEO, _NEXT_PLAN_WITHIN_MS)
        self._socket.setsockopt(
            zmq.IDENTITY, f"{ready.stage}-{ready.rank}-{ready.incarnation:x}".encode()
        )
        self._handshakes = HandshakeMonitor(self._socket, BROKEN | REFUSED)
        try:
            if keys is not None:
                keys.guard_caller(self._socket)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._context.destroy()
            raise StartupError(f"--scheduler-endpoint {endpoint}: {error.strerror}") from error
        self._lock = threading.Lock()
        self._epoch = 0
        self._is_led = False
        self._end_by_s = math.inf
        self.received: deque[Received] = deque()
        self.broken = BrokenFrames()
        self.num_stale = 0
        self._log = structlog.get_logger()
        self._limit = LogLimit()

    def fileno(self) -> int:
        """Return what becomes readable when a frame comes in after `receive` has taken all."""
        return self._socket.fileno()

    def send(self, body: bytes) -> bool:
        """Send, or forget it if there is no scheduler.

        Returns:
            Whether frames have come in, of which `fileno` may not tell any more: receive.
        """
        with self._lock:
            self._send(body)
            return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def receive(self) -> None:
        """Take all that has come in, and put in `received` what is for the step loop."""
        with self._lock:
            self._receive()

    def wait_and_receive(self) -> None:
        """Wait for a frame, for as long as steps follow one another at most, and take all."""
        with self._lock, contextlib.suppress(zmq.Again):
            self._take(self._socket.recv_multipart())
            self._receive()

    def beat(self, phase: step_pb2.WorkerPhase, last_step_id: int, since_ns: int) -> float:
        """Say that the worker lives, or that it is ready; return the seconds until the next time.

        Args:
            since_ns: when the phase began, of the monotonic clock.
        Raises:
            StartupError: the two ends will never talk to one another.
        """
        with self._lock:
            if self._is_led:
                phase_ns = time.monotonic_ns() - since_ns
                heartbeat = step_pb2.Heartbeat(
                    epoch=self._epoch, last_step_id=last_step_id, phase=phase, phase_ns=phase_ns
                )
                frame = step_pb2.WorkerFrame(heartbeat=heartbeat)
            else:
                self._ready.last_epoch = self._epoch
                frame = step_pb2.WorkerFrame(ready=self._ready)
            self._send(frame.SerializeToString())
            self._check_handshakes()
            self._receive()
        self._end_if_hung()
        return BEAT_S if self._is_led else _READY_PERIOD_S

    def close(self) -> None:
        with self._lock:
            self._handshakes.close()
            # The last result may still be on its way; a scheduler that is gone is not waited for.
            self._socket.close(linger=_CLOSING_MS)
            self._context.term()

    def _receive(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                self._take(self._socket.recv_multipart(zmq.NOBLOCK))

    def _send(self, body: bytes) -> None:
        try:
            self._socket.send(body, zmq.NOBLOCK)
        except zmq.Again:
            # No scheduler is connected. The next one plans everything anew, so nothing is lost.
            self._log.debug("no scheduler to send to", num_bytes=len(body))

    def _check_handshakes(self) -> None:
        for failure in self._handshakes.failures():
            text = f"--scheduler-endpoint {self._endpoint}: {failure.reason}"
            if failure.is_final:
                raise StartupError(text)
            if self._limit.allows(text):
                self._log.warning(text)

    def _end_if_hung(self) -> None:
        """End the process if the step loop does not hear that it has to; someone starts another."""
        if time.monotonic() > self._end_by_s:
            self._log.error("refused by the scheduler, and the step does not end: exiting")
            os._exit(1)

    def _take(self, parts: list[bytes]) -> None:
        frame = step_pb2.SchedulerFrame()
        try:
            (body,) = parts
            frame.ParseFromString(body)
        except (ValueError, DecodeError) as error:
            self.broken.add(b"scheduler", str(error))
            return
        match frame.WhichOneof("message"):
            case "plan":
                self._take_plan(frame.plan)
            case "heartbeat":
                # Not ours: another scheduler has taken the address over. It wants our WorkerReady.
                self._is_led = self._epoch > 0 and frame.heartbeat.epoch == self._epoch
            case "welcome":
                self._take_welcome(frame.welcome)
            case "refused":
                self._end_by_s = min(self._end_by_s, time.monotonic() + _END_WITHIN_S)
                self.received.append(RefusedByScheduler(frame.refused.reason))
            case _:
                self.broken.add(b"scheduler", "not a message that workers know")

    def _take_plan(self, plan: step_pb2.StepPlan) -> None:
        if plan.epoch == self._epoch > 0:
            self.received.append(plan)
        else:
            self.num_stale += 1

    def _take_welcome(self, welcome: step_pb2.WorkerWelcome) -> None:
        if welcome.epoch > self._epoch:
            self._epoch = welcome.epoch
            self._is_led = True
            self.received.append(welcome)
        else:
            self.num_stale += 1
