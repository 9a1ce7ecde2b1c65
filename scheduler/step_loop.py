"""The scheduler's loop: admit → schedule → execute → deliver → update, one step ahead.

    plain        plan 1 ─ result 1 ─ plan 2 ─ result 2 ─ ...
    overlapped   plan 1 ─ plan 2 ─ result 1 ─ plan 3 ─ result 2 ─ ...

The overlapped loop hides the time that planning, sending and delivering take behind the step that
runs meanwhile; the tokens are the same. Two loops of the same calls, after mini-sglang's scheduler.
"""

import asyncio
import time

import structlog

from octavo.errors import Unavailable
from octavo.failpoints import failpoint
from octavo.v1 import scheduling_pb2, step_pb2

from .inbox import Inbox
from .load_reports import LoadReports
from .metrics import StepTimes
from .results import BadResult
from .scheduler import MAX_STEPS_IN_FLIGHT, Scheduler
from .sessions import RouterSessions
from .worker_client import WorkerClient, WorkersLost

_RETRY_AFTER_S = 1.0


class StepLoop:
    """Owns the scheduler: whatever changes it comes through here, on the event loop's thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        workers: WorkerClient,
        sessions: RouterSessions,
        times: StepTimes,
        *,
        overlapped: bool,
    ) -> None:
        self._scheduler = scheduler
        self._workers = workers
        self._sessions = sessions
        self._times = times
        self._overlapped = overlapped
        self._inbox = Inbox(scheduler)
        self._wake = asyncio.Event()
        self._reports = LoadReports(scheduler, sessions)
        self._drained = asyncio.Event()
        self._log = structlog.get_logger()

    async def submit(self, request: scheduling_pb2.SubmitRequest) -> None:
        """Take a request in; raises RequestError."""
        if self._reports.is_draining:
            raise Unavailable("the scheduler is shutting down", retry_after_s=_RETRY_AFTER_S)
        self._wake.set()
        await self._inbox.submit(request, time.monotonic_ns())

    def abort(self, abort: scheduling_pb2.Abort) -> None:
        now_ns = time.monotonic_ns()
        self._inbox.expedite(abort.request_key, now_ns)
        self._scheduler.abort(abort, now_ns)
        self._wake.set()

    def set_window(self, window: scheduling_pb2.Window) -> None:
        self._inbox.expedite(window.request_key, time.monotonic_ns())
        self._scheduler.set_window(window)
        self._wake.set()

    def lose_router(self, router_id: bytes) -> None:
        """End the requests of a router whose stream has ended."""
        self._inbox.drop(router_id)
        self._scheduler.lose_router(router_id, time.monotonic_ns())
        self._wake.set()

    def load(self) -> scheduling_pb2.Load:
        """Return all that a router is to know of the load."""
        return self._reports.current()

    async def drain(self) -> None:
        """Refuse new requests from now on; return when all others have finished."""
        self._reports.begin_drain()
        self._wake.set()
        await self._drained.wait()

    async def run(self) -> None:
        """Step until cancelled. While the workers are away, requests wait and streams pause."""
        step = self._run_overlapped if self._overlapped else self._run_plain
        while True:
            try:
                await step()
            except WorkersLost as lost:
                self._log.warning("streams pause until the workers are back", reason=str(lost))
                self._scheduler.lose_workers(time.monotonic_ns())
                await self._workers_ready()

    async def _run_plain(self) -> None:
        while True:
            if (plan := await self._next_plan()) is not None:
                self._execute(plan)
            self._deliver()
            await self._update()

    async def _run_overlapped(self) -> None:
        while True:
            if (plan := await self._next_plan()) is not None:
                self._execute(plan)
            self._deliver()
            if plan is None or self._scheduler.num_in_flight == MAX_STEPS_IN_FLIGHT:
                await self._update()

    async def _next_plan(self) -> step_pb2.StepPlan | None:
        """Admit and schedule. Returns None if all there is to do waits for a result in flight."""
        while True:
            self._begin_turn()
            with self._times.schedule.time():
                plan = self._scheduler.schedule(time.monotonic_ns())
            if plan is not None or self._scheduler.num_in_flight:
                return plan
            self._deliver()
            await self._sleep()

    def _execute(self, plan: step_pb2.StepPlan) -> None:
        failpoint("scheduler.before_send_plan")
        self._workers.send(plan)

    async def _update(self) -> None:
        """Wait for the next result and apply it."""
        with self._times.wait.time():
            result = await self._workers.result()
        self._times.observe_worker(result.timings)
        failpoint("scheduler.after_result")
        try:
            with self._times.update.time():
                self._scheduler.update(result, time.monotonic_ns())
        except BadResult as error:
            self._workers.refuse(f"its result of step {result.step_id} is wrong: {error}")

    def _begin_turn(self) -> None:
        self._wake.clear()
        self._inbox.begin_turn(time.monotonic_ns())

    def _deliver(self) -> None:
        """Hand the routers what happened, and soon what it means for the load."""
        with self._times.deliver.time():
            outputs = self._scheduler.take_outputs()
            self._sessions.deliver(outputs)
        self._times.requests.observe(outputs.values())
        if self._reports.is_draining and self._scheduler.is_idle and not self._inbox.has_waiting:
            self._drained.set()
        self._reports.notice()

    async def _sleep(self) -> None:
        """Wait for something to happen or the next deadline to pass."""
        if self._inbox.has_waiting:
            await asyncio.sleep(0)
            return
        if self._scheduler.is_idle:
            self._scheduler.check_invariants()
        deadline_ns = self._scheduler.next_deadline_ns()
        left_s = None if deadline_ns is None else (deadline_ns - time.monotonic_ns()) / 1e9
        try:
            async with asyncio.timeout(left_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _workers_ready(self) -> None:
        """Wait for the workers; requests come, expire, and are aborted meanwhile."""
        ready = asyncio.create_task(self._workers.ready())
        ready.add_done_callback(lambda _: self._wake.set())
        try:
            while not ready.done():
                self._begin_turn()
                self._scheduler.expire(time.monotonic_ns())
                self._deliver()
                await self._sleep()
        finally:
            ready.cancel()
