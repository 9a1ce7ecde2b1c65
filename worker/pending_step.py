"""A step that a runner has started: what is to come, or what has come already."""

from dataclasses import dataclass
from typing import Protocol

from octavo.v1.step_pb2 import StepResult


class PendingStep(Protocol):
    """A step that a device has not done yet, or need not have."""

    def result(self) -> StepResult:
        """Wait until the device has done the step. Called once, in the order of steps.

        It may be called on another thread than the one that started the step, while that one starts
        the next.
        """
        ...


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """A step that was computed as it was started: there is nothing to wait for."""

    finished: StepResult

    def result(self) -> StepResult:
        return self.finished
