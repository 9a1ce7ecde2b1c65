"""One measurement of one engine, the order in which engines take turns, and ratios of turns."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .workloads import OfflineWorkload, Request, ServedWorkload, Workload


class WrongRun(Exception):
    """An engine did other work than it was given; nothing is reported."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What an engine did in one turn."""

    duration_s: float
    num_input_tokens: int
    num_output_tokens: int
    num_cached_tokens: int | None = None
    """Of the prompts, found in a prefix cache; None if the engine does not say."""
    latencies_ms: Mapping[str, float] = field(default_factory=dict)
    """Of served requests: mean and p99 of TTFT, ITL and TPOT."""

    def tokens_per_s(self, workload: Workload) -> float:
        counted = self.num_output_tokens
        if workload.counts_input:
            counted += self.num_input_tokens
        return counted / self.duration_s


def turns(engines: Sequence[str], rounds: int) -> list[tuple[str, int]]:
    """Return (engine, pass): A B B A, or A B C C B A, `rounds` times.

    In each pass every engine gets the same prompts. Forth and back, all engines have the same
    middle in time, so that a machine that slows down steadily slows them alike.
    """
    order = []
    for i in range(rounds):
        order += [(engine, 2 * i) for engine in engines]
        order += [(engine, 2 * i + 1) for engine in reversed(engines)]
    return order


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the passes' ratios."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def check(run: Run, workload: Workload, requests: Sequence[Request], engine: str) -> None:
    """Raise WrongRun unless the engine made the tokens it was asked for, and computed each."""
    if isinstance(workload, ServedWorkload):
        expected = workload.num_requests * workload.output_len
    else:
        expected = sum(request.output_len for request in requests)
    if run.num_output_tokens != expected:
        raise WrongRun(
            f"{engine}, {workload.name}: {run.num_output_tokens} tokens instead of {expected}"
        )
    if isinstance(workload, OfflineWorkload) and run.num_cached_tokens is not None:
        most = workload.num_cacheable_tokens()
        if run.num_cached_tokens > most:
            raise WrongRun(
                f"{engine}, {workload.name}: {run.num_cached_tokens} prompt tokens were cached, "
                f"where at most {most} are shared"
            )
