"""A shape's fastest launch: right first, then faster than the reasoned one by a margin."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean
from typing import Generic

import torch

from benchmarks.gpu_check.kernel_case import (
    TOLERANCE,
    KernelCase,
    Outputs,
    beyond_cache,
    expected_of,
    largest_error,
)
from benchmarks.gpu_check.probes import Ceilings
from benchmarks.gpu_check.timing import seconds_in_graph
from octavo.kernels.gpu.architecture import architecture_of
from octavo.kernels.gpu.launch_table import LaunchT, Measured, ShapeT

from .subject import Subject

# By which a launch must be faster to take the place of the reasoned one: less may be chance.
MARGIN = 0.03


@dataclass(frozen=True, slots=True)
class Bench:
    """Where launches are timed, and by what.

    Attributes:
        seconds_of: returns the seconds of a call; each of its calls has data of its own.
    """

    device: torch.device
    ceilings: Ceilings
    seconds_of: Callable[[Sequence[Callable[[], object]]], float] = seconds_in_graph


@dataclass(frozen=True, slots=True)
class Found(Generic[LaunchT]):
    """What came of a shape, and of how many launches; the GPU or the reference refused some."""

    measured: Measured[LaunchT]
    num_tried: int
    num_refused: int


def fastest(subject: Subject[ShapeT, LaunchT], bench: Bench, ends_s: float) -> Found[LaunchT]:
    """Try launches until `ends_s` of the monotonic clock; raises if the reasoned one is wrong."""
    reasoned = subject.launches.reasoned(subject.shape, architecture_of(bench.device))
    trials = [_Trial(case, subject.dtype, bench) for case in subject.cases]
    for trial in trials:
        trial.calls()

    def seconds_with(launch: LaunchT) -> float:
        subject.launches.pin(subject.shape, bench.device, launch)
        return geometric_mean([trial.seconds() for trial in trials])

    reasoned_s = seconds_with(reasoned)
    best, best_s = None, reasoned_s / (1 + MARGIN)
    num_tried = num_refused = 0
    for launch in subject.candidates(reasoned):
        if time.monotonic() > ends_s:
            break
        num_tried += 1
        try:
            seconds = seconds_with(launch)
        except Exception:  # noqa: BLE001 - what a launch can fail of has many types
            num_refused += 1
            continue
        if seconds < best_s:
            best, best_s = launch, seconds
    seconds = reasoned_s if best is None else best_s
    limit_s = geometric_mean([trial.limit_s for trial in trials])
    measured = Measured(
        launch=best,
        case="; ".join(case.shape for case in subject.cases),
        us=round(seconds * 1e6, 2),
        reasoned_us=round(reasoned_s * 1e6, 2),
        percent_of_limit=round(100 * limit_s / seconds),
    )
    return Found(measured, num_tried, num_refused)


class _Trial:
    """A case, its data and what has to come of them, for one launch after another."""

    def __init__(self, case: KernelCase, dtype: torch.dtype, bench: Bench) -> None:
        inputs = case.make(str(bench.device), dtype)
        cost = case.cost(inputs)
        self.limit_s = bench.ceilings.seconds(cost.num_bytes, cost.flops)
        self._case = case
        self._bench = bench
        self._tolerance = case.tolerance or TOLERANCE[dtype]
        self._expected = expected_of(case, inputs)
        self._copies = beyond_cache(inputs)

    def calls(self) -> list[Callable[[], Outputs]]:
        """Return the calls to time; raises ArithmeticError if what they compute is wrong."""
        calls = [self._case.bind(*inputs) for inputs in self._copies]
        error = largest_error(calls[0](), self._expected)
        if not error <= self._tolerance:
            raise ArithmeticError(f"{self._case.name} on {self._case.shape}: error {error:.2g}")
        return calls

    def seconds(self) -> float:
        """Return those of a call, if what it computes is right."""
        return self._bench.seconds_of(self.calls())
