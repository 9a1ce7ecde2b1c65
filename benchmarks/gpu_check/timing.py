"""The time of a kernel: a recorded graph of many calls, each with data that no cache has."""

import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch

# More than the last cache of any GPU so far.
FLUSHED_BYTES = 2**28
_NUM_WARM_UPS, _NUM_RUNS = 3, 20
# So that what it takes to start a graph does not count.
_LEAST_CALLS = 32


def seconds_of(run: Callable[[], object]) -> float:
    """Return the median of the GPU's seconds for a call, nothing of its data in the cache."""
    for _ in range(_NUM_WARM_UPS):
        run()
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    spans = []
    for _ in range(_NUM_RUNS):
        flushed.zero_()
        started, ended = _event(), _event()
        started.record()
        run()
        ended.record()
        spans.append((started, ended))
    torch.cuda.synchronize()
    return median(float(started.elapsed_time(ended)) for started, ended in spans) / 1e3


def seconds_in_graph(calls: Sequence[Callable[[], object]]) -> float:
    """Return the seconds of a call as a server's recorded steps make it; each has its own data.

    Where there is no GPU, in Triton's interpreter, they are the interpreter's.
    """
    if not torch.cuda.is_available():
        started_s = time.perf_counter()
        calls[0]()
        return time.perf_counter() - started_s
    for call in calls:
        call()
    torch.cuda.synchronize()
    num_calls = max(_LEAST_CALLS, len(calls))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in itertools.islice(itertools.cycle(calls), num_calls):
            call()
    return seconds_of(graph.replay) / num_calls


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
