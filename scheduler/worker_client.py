"""The scheduler's end of the socket to its workers: plans out, results in, workers lost.

worker ── WorkerReady, until answered ──►     checked against the group
       ◄── WorkerWelcome{epoch} or WorkerRefused{reason} ──
       ◄── StepPlan ──    ── StepResult or PlanRefused ──►
       ◄── Heartbeat each 500 ms, both ways ──►
"""

import asyncio
import time
from dataclasses import dataclass

import structlog
import zmq
from google.protobuf.message import DecodeError

from octavo.curve import CurveKeys
from octavo.frames import BEAT_S, LOST_AFTER_BEATS, BrokenFrames, envelope
from octavo.log_limit import LogLimit
from octavo.v1 import step_pb2

from .handshake import refusal
from .metrics import StepTimes
from .settings import STEP_TIMEOUT_S
from .step_watch import StepWatch, seen
from .worker_socket import WorkerSocket

_MAX_FRAMES_PER_TURN = 64


class WorkersLost(Exception):
    """The group is not whole any more, and with it the KV of all requests is gone; says why."""


@dataclass(slots=True)
class _Worker:
    identity: bytes
    ready: step_pb2.WorkerReady
    heartbeat: step_pb2.Heartbeat
    silent_beats: int = 0


class WorkerClient:
    """The group of workers, by (stage, rank); so far one stage of one rank.

    After a loss `send` and `result` raise WorkersLost until `ready` has been awaited, even where a
    new worker has come meanwhile: whoever plans must know first that all KV is gone.
    `epoch` is chosen when the first worker joins: greater than any that it has served.
    Belongs to the event loop; the socket is read when it is readable, and never waited for.
    """

    def __init__(
        self,
        endpoint: str,
        times: StepTimes,
        keys: CurveKeys | None = None,
        *,
        step_timeout_s: float = STEP_TIMEOUT_S,
    ) -> None:
        """Bind; raises StartupError where that cannot be done, or would not be private.

        Args:
            step_timeout_s: a worker that has work and stays in one phase for longer is lost.
        """
        self._watch = StepWatch(step_timeout_s)
        self._bound = WorkerSocket(endpoint, keys)
        self._socket = self._bound.socket
        self._times = times
        self.epoch = 0
        self.broken = BrokenFrames()
        self.num_stale_frames = 0
        self._workers: dict[tuple[int, int], _Worker] = {}
        self._first: step_pb2.WorkerReady | None = None
        self._lost: WorkersLost | None = None
        self._is_whole = asyncio.Event()
        self._results: asyncio.Queue[step_pb2.StepResult | WorkersLost] = asyncio.Queue()
        self._log = structlog.get_logger()
        self._limit = LogLimit()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._receive_all)
        self._beat_handle = self._loop.call_later(BEAT_S, self._beat)
        # What came in before the reader was there raised no edge.
        self._loop.call_soon(self._receive_all)

    def close(self) -> None:
        self._beat_handle.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._bound.close()

    async def ready(self) -> step_pb2.WorkerReady:
        """Wait until the group is whole; return what it can do. Forgets an earlier loss."""
        await self._is_whole.wait()
        self._lost = None
        self._results = asyncio.Queue()
        assert self._first is not None
        return self._first

    def send(self, plan: step_pb2.StepPlan) -> None:
        """Send a plan to all workers; raises WorkersLost."""
        if self._lost is not None:
            raise self._lost
        with self._times.encode.time():
            frame = envelope(step_pb2.SchedulerFrame.PLAN_FIELD_NUMBER, plan)
        with self._times.send.time():
            for worker in list(self._workers.values()):
                self._send(worker, frame)
        if self._lost is not None:
            raise self._lost
        self._watch.plan_sent(time.monotonic())
        self._receive_later()

    async def result(self) -> step_pb2.StepResult:
        """Return the next result, in the order sent; raises WorkersLost."""
        if self._lost is not None:
            raise self._lost
        result = await self._results.get()
        if isinstance(result, WorkersLost):
            raise result
        return result

    def refuse(self, reason: str) -> None:
        """Send all workers away, to be started again: what they do makes no sense."""
        for worker in list(self._workers.values()):
            self._dismiss(worker, reason)

    def _receive_later(self) -> None:
        """Look at the socket soon: sending may have taken the edge that says it is readable."""
        if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._loop.call_soon(self._receive_all)

    def _receive_all(self) -> None:
        if self._socket.closed:
            return
        for _ in range(_MAX_FRAMES_PER_TURN):
            try:
                identity, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._receive(identity, parts)
        self._loop.call_soon(self._receive_all)

    def _receive(self, identity: bytes, parts: list[bytes]) -> None:
        frame = step_pb2.WorkerFrame()
        started_s = time.perf_counter()
        try:
            (body,) = parts
            frame.ParseFromString(body)
        except (ValueError, DecodeError) as error:
            self.broken.add(identity, str(error))
            return
        kind = frame.WhichOneof("message")
        if kind == "result":
            self._times.decode.observe(time.perf_counter() - started_s)
        if kind == "ready":
            self._receive_ready(identity, frame.ready)
            return
        worker = next((w for w in self._workers.values() if w.identity == identity), None)
        if worker is not None:
            self._receive_from(worker, frame)
            return
        self.num_stale_frames += 1
        if kind == "heartbeat":
            # Led by an earlier scheduler, or given up as lost. Told that nobody leads it, it says
            # that it is ready, and is welcomed or refused.
            nobody = step_pb2.Heartbeat(epoch=0)
            self._answer(identity, step_pb2.SchedulerFrame(heartbeat=nobody))

    def _receive_from(self, worker: _Worker, frame: step_pb2.WorkerFrame) -> None:
        worker.silent_beats = 0
        match frame.WhichOneof("message"):
            case "heartbeat":
                worker.heartbeat = frame.heartbeat
                complaint = self._watch.complaint(frame.heartbeat, time.monotonic())
                if complaint is not None:
                    self._dismiss(worker, complaint)
            case "result" if frame.result.epoch == self.epoch:
                self._watch.result_came(time.monotonic())
                self._results.put_nowait(frame.result)
            case "plan_refused" if frame.plan_refused.epoch == self.epoch:
                refused = frame.plan_refused
                self._dismiss(worker, f"it refused step {refused.step_id}: {refused.reason}")
            case "result" | "plan_refused":
                self.num_stale_frames += 1
            case _:
                self.broken.add(worker.identity, "not a message that schedulers expect")

    def _receive_ready(self, identity: bytes, ready: step_pb2.WorkerReady) -> None:
        if identity != f"{ready.stage}-{ready.rank}-{ready.incarnation:x}".encode():
            self.broken.add(identity, "WorkerReady of another worker")
            return
        key = (ready.stage, ready.rank)
        known = self._workers.get(key)
        if known is not None and known.identity == identity:
            self._welcome(known)
            return
        if (reason := refusal(ready, self._first, self.epoch)) is not None:
            if self._limit.allows(identity):
                self._log.error("refused a worker", worker=_name(ready), reason=reason)
            self._answer(identity, _refused(reason))
            return
        if known is not None:
            self._dismiss(known, "a newer worker has taken its place")
        if self._first is None:
            self._first = ready
            self.epoch = ready.last_epoch + 1
        worker = _Worker(identity, ready, step_pb2.Heartbeat())
        self._workers[key] = worker
        self._log.info("worker joined", worker=_name(ready), device=ready.device, epoch=self.epoch)
        self._welcome(worker)
        self._is_whole.set()

    def _beat(self) -> None:
        self._beat_handle = self._loop.call_later(BEAT_S, self._beat)
        self._receive_all()
        heartbeat = step_pb2.Heartbeat(epoch=self.epoch)
        frame = step_pb2.SchedulerFrame(heartbeat=heartbeat).SerializeToString()
        for worker in list(self._workers.values()):
            worker.silent_beats += 1
            if worker.silent_beats > LOST_AFTER_BEATS:
                silent_s = LOST_AFTER_BEATS * BEAT_S
                self._lose(worker, f"silent for {silent_s:.0f} s; {seen(worker.heartbeat)}")
            else:
                self._send(worker, frame)
        self._receive_later()

    def _welcome(self, worker: _Worker) -> None:
        welcome = step_pb2.WorkerWelcome(epoch=self.epoch)
        self._send(worker, step_pb2.SchedulerFrame(welcome=welcome).SerializeToString())

    def _send(self, worker: _Worker, frame: bytes) -> None:
        """Send to a worker of the group; one that cannot be reached is lost."""
        try:
            self._socket.send_multipart([worker.identity, frame], zmq.NOBLOCK)
        except zmq.Again:
            self._lose(worker, "does not read what it is sent")
        except zmq.ZMQError as error:
            self._lose(worker, f"its connection is gone ({error.strerror})")

    def _answer(self, identity: bytes, frame: step_pb2.SchedulerFrame) -> None:
        """Send to a peer outside the group, if it can be reached."""
        try:
            self._socket.send_multipart([identity, frame.SerializeToString()], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            self._log.debug("no answer to a peer", peer=repr(identity), reason=error.strerror)

    def _dismiss(self, worker: _Worker, reason: str) -> None:
        self._answer(worker.identity, _refused(reason))
        self._lose(worker, reason)

    def _lose(self, worker: _Worker, reason: str) -> None:
        key = (worker.ready.stage, worker.ready.rank)
        if self._workers.get(key) is not worker:
            return
        del self._workers[key]
        self._is_whole.clear()
        self._watch.forget()
        self._lost = WorkersLost(f"worker {_name(worker.ready)}: {reason}")
        self._results.put_nowait(self._lost)
        self._log.error("lost a worker", worker=_name(worker.ready), reason=reason)


def _name(ready: step_pb2.WorkerReady) -> str:
    return f"{ready.stage}-{ready.rank}"


def _refused(reason: str) -> step_pb2.SchedulerFrame:
    return step_pb2.SchedulerFrame(refused=step_pb2.WorkerRefused(reason=reason))
