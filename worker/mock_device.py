"""A device without silicon: it runs beside the CPU, one step after another, and only takes time."""

import time
from dataclasses import dataclass

from octavo.v1.step_pb2 import StepResult


@dataclass(frozen=True, slots=True)
class TimedStep:
    """A step whose result is there when its time has passed."""

    finished: StepResult
    ends_ns: int
    """Of the monotonic clock."""

    def result(self) -> StepResult:
        time.sleep(max(self.ends_ns - time.monotonic_ns(), 0) / 1e9)
        return self.finished


class MockDevice:
    """What is launched begins at once, or when the step before it ends.

    Its clock is arithmetic: a thread that wakes late makes no step longer, only the next one late
    if that was not launched before.
    """

    def __init__(self, step_s: float) -> None:
        self._step_ns = int(step_s * 1e9)
        self._free_from_ns = 0

    def launch(self, result: StepResult) -> TimedStep:
        self._free_from_ns = max(self._free_from_ns, time.monotonic_ns()) + self._step_ns
        result.timings.forward_ns = self._step_ns
        return TimedStep(result, self._free_from_ns)
