"""The worker's loop: receive a plan, run it, send the result."""

from typing import Protocol

import structlog

from octavo.failpoints import failpoint
from octavo.v1 import step_pb2

from .block_tables import BadPlan
from .metrics import WorkerMetrics


class StepRunner(Protocol):
    """What runs a step: a model, or the mock."""

    def describe(self) -> step_pb2.WorkerReady:
        """Say what there is to plan for; identity and protocol version are left empty."""
        ...

    def execute(self, plan: step_pb2.StepPlan) -> step_pb2.StepResult:
        """Run one step. Raises BadPlan, having changed nothing, for a plan that cannot be run."""
        ...


class PlanSource(Protocol):
    """Where plans come from and results go: the client of the scheduler."""

    async def next_plan(self) -> step_pb2.StepPlan: ...

    def send_result(self, result: step_pb2.StepResult) -> None: ...

    def refuse_plan(self, plan: step_pb2.StepPlan, reason: str) -> None: ...

    def set_phase(self, phase: step_pb2.WorkerPhase, last_step_id: int) -> None: ...


class StepFailed(Exception):
    """A step raised something that is not the plan's fault; the worker's state is unknown."""


class StepLoop:
    """Runs plans in order, each once.

    Steps run on the event loop's own thread: nothing else happens in this process but heartbeats,
    which have a thread of their own.
    """

    def __init__(self, runner: StepRunner, scheduler: PlanSource, metrics: WorkerMetrics) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._metrics = metrics
        self._epoch = 0
        self._last_step_id = 0
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Run steps until cancelled, which happens between two of them; raises StepFailed."""
        while True:
            self._scheduler.set_phase(step_pb2.WORKER_PHASE_IDLE, self._last_step_id)
            with self._metrics.wait.time():
                plan = await self._scheduler.next_plan()
            if self._is_repeated(plan):
                self._log.debug("plan received twice", step_id=plan.step_id)
                continue
            try:
                self._step(plan)
            except BadPlan as error:
                self._metrics.refused_plans.inc()
                self._log.error("refused a plan", step_id=plan.step_id, reason=str(error))
                self._scheduler.refuse_plan(plan, str(error))

    def _step(self, plan: step_pb2.StepPlan) -> None:
        if plan.epoch == self._epoch and plan.step_id != self._last_step_id + 1:
            raise BadPlan(f"step {plan.step_id} follows step {self._last_step_id}: one is missing")
        self._scheduler.set_phase(step_pb2.WORKER_PHASE_FORWARD, self._last_step_id)
        result = self._execute(plan)
        self._epoch, self._last_step_id = plan.epoch, plan.step_id
        self._scheduler.set_phase(step_pb2.WORKER_PHASE_SEND, self._last_step_id)
        with self._metrics.send.time():
            self._scheduler.send_result(result)
        self._metrics.observe(plan, result)

    def _execute(self, plan: step_pb2.StepPlan) -> step_pb2.StepResult:
        try:
            failpoint("worker.before_step")
            result = self._runner.execute(plan)
            failpoint("worker.after_step")
            return result
        except BadPlan:
            raise
        except Exception as error:
            raise StepFailed(
                f"step {plan.step_id} of {len(plan.row)} rows failed:"
                f" {type(error).__name__}: {error}"
            ) from error

    def _is_repeated(self, plan: step_pb2.StepPlan) -> bool:
        return plan.epoch == self._epoch and plan.step_id <= self._last_step_id
