"""What a GPU can do at most: memory, matrix products, launches."""

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch

_GIB = 2**30
_PROBED_BYTES = 4 * _GIB
# More than the last cache of any GPU so far.
_FLUSHED_BYTES = _GIB // 4
_MATRIX_SIZE = 8192
_NUM_LAUNCHES = 1000
_NUM_WARM_UPS, _NUM_RUNS = 3, 20


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement, in a unit that is told with it."""

    name: str
    value: float
    unit: str


def run_probes() -> Iterator[Probe]:
    """Yield one measurement after another; needs twice 4 GiB of the GPU's memory."""
    yield Probe("read", _read_bytes_per_s() / 1e9, "GB/s")
    yield Probe("copy, read and written", _copy_bytes_per_s() / 1e9, "GB/s")
    yield Probe("bfloat16 product of 8192³", _bfloat16_flops() / 1e12, "TFLOP/s")
    if clock := query_gpu("clocks.sm"):
        yield Probe("SM clock just after it", float(clock["clocks.sm"].split()[0]), "MHz")
    yield Probe("launch", _launch_s() * 1e6, "µs")
    yield Probe("launch in a CUDA graph", _graph_launch_s() * 1e6, "µs")


def query_gpu(*fields: str) -> dict[str, str]:
    """Return what the driver says of the first GPU; nothing where there is no nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return dict(zip(fields, answer.stdout.splitlines()[0].split(", "), strict=True))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return {}


def seconds_of(run: Callable[[], object]) -> float:
    """Return the median of the GPU's seconds for a call, nothing of its data in the cache."""
    for _ in range(_NUM_WARM_UPS):
        run()
    flushed = torch.empty(_FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
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


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _read_bytes_per_s() -> float:
    source = torch.randn(_PROBED_BYTES // 4, device="cuda")
    return source.nbytes / seconds_of(source.sum)


def _copy_bytes_per_s() -> float:
    source = torch.randn(_PROBED_BYTES // 4, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds_of(lambda: target.copy_(source))


def _bfloat16_flops() -> float:
    # Random numbers: zeros take less power, and so higher clocks.
    a, b = torch.randn(2, _MATRIX_SIZE, _MATRIX_SIZE, device="cuda", dtype=torch.bfloat16)
    return 2 * _MATRIX_SIZE**3 / seconds_of(lambda: a @ b)


def _launch_s() -> float:
    """Return the seconds of a launch, as the processor paces them."""
    counter = torch.zeros(1, device="cuda")
    counter.add_(1)
    torch.cuda.synchronize()
    started_s = time.perf_counter()
    for _ in range(_NUM_LAUNCHES):
        counter.add_(1)
    torch.cuda.synchronize()
    return (time.perf_counter() - started_s) / _NUM_LAUNCHES


def _graph_launch_s() -> float:
    """Return the seconds of a launch that was recorded before."""
    counter = torch.zeros(1, device="cuda")
    counter.add_(1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(_NUM_LAUNCHES):
            counter.add_(1)
    return seconds_of(graph.replay) / _NUM_LAUNCHES
