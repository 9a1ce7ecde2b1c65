"""A worker process whose device ends no step before the next is there, and that notes what happens.

    python -m tests.worker.journaling_worker ENDPOINT JOURNAL MAX_TOKENS

The ends of the socket and the loop are the real ones, the tokens the mock's. Each output is to have
MAX_TOKENS tokens: so the device knows whether anything is left to do after a step. If nothing
is, the step ends at once.
"""

import asyncio
import sys
import threading
from pathlib import Path

from octavo.v1 import step_pb2
from octavo.worker.metrics import WorkerMetrics
from octavo.worker.mock_runner import MockRunner
from octavo.worker.pending_step import PendingStep
from octavo.worker.scheduler_client import SchedulerClient
from octavo.worker.settings import WorkerSettings
from octavo.worker.step_loop import StepLoop

BLOCK_SIZE = 4
VOCAB_SIZE = 1000
NEXT_WITHIN_S = 60.0


class Journal:
    """Lines of an event and a step's number, in the order in which they happened."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")
        self._lock = threading.Lock()

    def note(self, event: str, step_id: int) -> None:
        with self._lock:
            self._file.write(f"{event} {step_id}\n")
            self._file.flush()


class WaitingStep:
    """A step that ends when the next one has been started."""

    def __init__(self, finished: step_pb2.StepResult, journal: Journal) -> None:
        self.may_end = threading.Event()
        self._finished = finished
        self._journal = journal

    def result(self) -> step_pb2.StepResult:
        self.may_end.wait(NEXT_WITHIN_S)
        self._journal.note("ended", self._finished.step_id)
        return self._finished


class WaitingRunner(MockRunner):
    """The mock on such a device."""

    def __init__(self, settings: WorkerSettings, journal: Journal, max_tokens: int) -> None:
        super().__init__(settings, poison=True)
        self._journal = journal
        self._max_tokens = max_tokens
        self._step_before: WaitingStep | None = None

    def start(self, plan: step_pb2.StepPlan) -> PendingStep:
        self._journal.note("received", plan.step_id)
        step = WaitingStep(self.execute(plan), self._journal)
        self._journal.note("started", plan.step_id)
        if self._step_before is not None:
            self._step_before.may_end.set()
        if not self._has_work_left():
            self._journal.note("last", plan.step_id)
            step.may_end.set()
        self._step_before = step
        return step

    def _has_work_left(self) -> bool:
        rows = self._rows
        num_outputs = (rows.num_tokens - rows.num_prompt_tokens)[rows.is_used]
        return bool((num_outputs < self._max_tokens).any())


async def main(endpoint: str, journal: Path, max_tokens: int) -> None:
    settings = WorkerSettings(
        scheduler_endpoint=endpoint,
        mock=True,
        block_size=BLOCK_SIZE,
        mock_vocab_size=VOCAB_SIZE,
    )
    runner = WaitingRunner(settings, Journal(journal), max_tokens)
    ready = runner.describe()
    async with SchedulerClient(endpoint, ready, rank=0) as scheduler:
        await scheduler.welcomed()
        await StepLoop(runner, scheduler, WorkerMetrics(ready)).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
