"""The worker's loop: receive a plan, start it, send what it brings.

    step loop (event loop's thread)       completion thread           device
    plan 1 ── start ─────────────────────────────────────────────────► step 1
    plan 2 ── start ──────────────────────  wait for step 1             │
           (queued behind step 1)         ◄──────────────────────────── ▼
    plan 3 ── start                         send result 1              step 2

A plan is received, decoded, checked and staged while the device runs the step before it. Where
steps are computed by this very thread, as on a CPU, each result is sent by it, too.
"""

import threading
from functools import partial
from typing import Protocol

import structlog

from octavo.failpoints import failpoint
from octavo.v1 import step_pb2

from .block_tables import BadPlan
from .completion_thread import CompletionThread
from .metrics import WorkerMetrics
from .pending_step import FinishedStep, PendingStep


class StepRunner(Protocol):
    """What runs a step: a model, or the mock."""

    def describe(self) -> step_pb2.WorkerReady:
        """Say what there is to plan for; identity and protocol version are left empty."""
        ...

    def start(self, plan: step_pb2.StepPlan) -> PendingStep:
        """Check the plan, stage it, and have the device run it after the steps before.

        Raises BadPlan, having changed nothing, for a plan that cannot be run.
        """
        ...

    def prepare(self) -> bool:
        """Do some of what steps would have to wait for later; return whether more is left.

        Called while no step is under way and no plan is there.
        """
        ...


class PlanSource(Protocol):
    """Where plans come from and results go: the client of the scheduler."""

    async def next_plan(self) -> step_pb2.StepPlan: ...

    async def next_plan_at_once(self) -> step_pb2.StepPlan: ...

    async def has_plan(self) -> bool: ...

    def send_result(self, result: step_pb2.StepResult) -> None: ...

    def refuse_plan(self, plan: step_pb2.StepPlan, reason: str) -> None: ...

    def set_phase(self, phase: step_pb2.WorkerPhase, last_step_id: int) -> None: ...

    def interrupt(self, error: Exception) -> None: ...


class StepFailed(Exception):
    """A step raised something that is not the plan's fault; the worker's state is unknown."""


class StepLoop:
    """Runs plans in order, each once, and answers them in order.

    Steps are started on the event loop's own thread: nothing else happens on it, and heartbeats
    have a thread of their own.
    """

    def __init__(self, runner: StepRunner, scheduler: PlanSource, metrics: WorkerMetrics) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._metrics = metrics
        self._epoch = 0
        self._last_started_id = 0
        self._can_prepare = True
        self._completions = CompletionThread(scheduler.interrupt)
        self._lock = threading.Lock()
        # Under the lock: both threads count steps, and say what the worker does.
        self._num_under_way = 0
        self._last_done_id = 0
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Run steps until cancelled, which happens between two of them; raises StepFailed.

        What has been started is waited for, and its results are sent.
        """
        self._scheduler.set_phase(step_pb2.WORKER_PHASE_IDLE, 0)
        try:
            while True:
                plan = await self._next_plan()
                if self._is_repeated(plan):
                    self._log.debug("plan received twice", step_id=plan.step_id)
                    continue
                self._run(plan)
        finally:
            self._completions.close()

    async def _next_plan(self) -> step_pb2.StepPlan:
        with self._metrics.wait.time():
            if self._num_under_way:
                return await self._scheduler.next_plan()
            while self._can_prepare and not await self._scheduler.has_plan():
                self._can_prepare = self._runner.prepare()
            return await self._scheduler.next_plan_at_once()

    def _run(self, plan: step_pb2.StepPlan) -> None:
        """Start a step, and see to its answer: now, or once all before it have been given."""
        is_only_one = self._begin()
        try:
            step = self._start(plan)
        except BadPlan as error:
            answer = partial(self._refuse, plan, str(error))
            is_known = True
        else:
            answer = partial(self._finish, plan, step)
            is_known = isinstance(step, FinishedStep)
        if is_known and is_only_one:
            answer()
        else:
            self._completions.add(answer)

    def _start(self, plan: step_pb2.StepPlan) -> PendingStep:
        if plan.epoch == self._epoch and plan.step_id != self._last_started_id + 1:
            raise BadPlan(
                f"step {plan.step_id} follows step {self._last_started_id}: one is missing"
            )
        try:
            failpoint("worker.before_step")
            step = self._runner.start(plan)
        except BadPlan:
            raise
        except Exception as error:
            raise _failure(plan, error) from error
        self._epoch, self._last_started_id = plan.epoch, plan.step_id
        return step

    def _finish(self, plan: step_pb2.StepPlan, step: PendingStep) -> None:
        try:
            result = step.result()
            failpoint("worker.after_step")
        except Exception as error:
            raise _failure(plan, error) from error
        self._scheduler.set_phase(step_pb2.WORKER_PHASE_SEND, plan.step_id)
        with self._metrics.send.time():
            self._scheduler.send_result(result)
        self._metrics.observe(plan, result)
        self._end(plan.step_id)

    def _refuse(self, plan: step_pb2.StepPlan, reason: str) -> None:
        self._metrics.refused_plans.inc()
        self._log.error("refused a plan", step_id=plan.step_id, reason=reason)
        self._scheduler.refuse_plan(plan, reason)
        self._end(self._last_done_id)

    def _begin(self) -> bool:
        """Count a step as under way; return whether there is no other."""
        with self._lock:
            self._num_under_way += 1
            if self._num_under_way > 1:
                return False
            self._scheduler.set_phase(step_pb2.WORKER_PHASE_FORWARD, self._last_done_id)
            return True

    def _end(self, last_done_id: int) -> None:
        with self._lock:
            self._num_under_way -= 1
            self._last_done_id = last_done_id
            is_idle = not self._num_under_way
            phase = step_pb2.WORKER_PHASE_IDLE if is_idle else step_pb2.WORKER_PHASE_FORWARD
            self._scheduler.set_phase(phase, last_done_id)

    def _is_repeated(self, plan: step_pb2.StepPlan) -> bool:
        return plan.epoch == self._epoch and plan.step_id <= self._last_started_id


def _failure(plan: step_pb2.StepPlan, error: Exception) -> StepFailed:
    return StepFailed(
        f"step {plan.step_id} of {len(plan.row)} rows failed: {type(error).__name__}: {error}"
    )
