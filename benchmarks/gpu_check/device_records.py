"""Where the GPU's time goes in steps that decode, from its own records of its work.

python -m benchmarks.gpu_check.device_records DRIVE    (engine.py starts it, with a Drive as JSON)
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.profiler import DeviceType

from .child import write_row
from .drive import generate, load
from .engine import Drive
from .report import Row
from .workloads import MAX_NUM_SEQS

# Only steps with prompts run it.
_PREFILL = "prefill_attention"
_MOST_TOLD = 12
_NUM_OUTPUT = 32


@dataclass(frozen=True, slots=True)
class Work:
    """A kernel or a copy, in microseconds."""

    name: str
    begun_us: float
    ended_us: float


def main() -> int:
    drive = Drive.from_json(sys.argv[1])
    case = drive.case
    llm = load(case, drive.directory)
    try:
        for workload in case.workloads:
            part = workload.beginning(MAX_NUM_SEQS, _NUM_OUTPUT)
            run = partial(generate, llm, part, case.model.vocab_size)
            run()
            for row in kernel_times(run):
                write_row(row)
    finally:
        llm.close()
    return 0


def kernel_times(run: Callable[[], object]) -> list[Row]:
    """Return what the GPU did in `run`, as `decode_times` tells it."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    return decode_times(
        Work(event.name, event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == DeviceType.CUDA
    )


def decode_times(works: Iterable[Work]) -> list[Row]:
    """Return the share of each kernel in the time after the last prompt, the largest first.

    The time without any has a row, too: much of it lies between the kernels of one graph.
    """
    ordered = sorted(works, key=lambda work: work.begun_us)
    last = max((i for i, work in enumerate(ordered) if _PREFILL in work.name), default=-1)
    decodes = ordered[last + 1 :]
    if not decodes:
        return []
    span_us = max(work.ended_us for work in decodes) - decodes[0].begun_us
    by_name: dict[str, list[float]] = {"nothing": [span_us - busy_us(decodes)]}
    for work in decodes:
        by_name.setdefault(work.name, []).append(work.ended_us - work.begun_us)
    largest = sorted(by_name.items(), key=lambda each: -sum(each[1]))[:_MOST_TOLD]
    return [
        {
            "kernel": name,
            "percent": round(100 * sum(times_us) / span_us, 1),
            "calls": len(times_us),
            "us": round(sum(times_us) / len(times_us), 2),
        }
        for name, times_us in largest
    ]


def busy_us(ordered: Sequence[Work]) -> float:
    """Return the time that some work covers; works may overlap, as those of two streams do."""
    covered_to, busy = ordered[0].begun_us, 0.0
    for work in ordered:
        busy += max(0.0, work.ended_us - max(work.begun_us, covered_to))
        covered_to = max(covered_to, work.ended_us)
    return busy


if __name__ == "__main__":
    sys.exit(main())
