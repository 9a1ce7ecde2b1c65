"""What a GPU can do at most: memory, matrix products, launches."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from .timing import seconds_of

_PROBED_BYTES = 2**32
_MATRIX_SIZE = 8192
_NUM_LAUNCHES = 1000


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement, in a unit that is told with it."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What no kernel goes beyond: bytes from memory, operations of a bfloat16 product."""

    bytes_per_s: float
    flops_per_s: float

    @staticmethod
    def of(probed: Mapping[str, float]) -> "Ceilings":
        """Take them from the values of probes, by name."""
        return Ceilings(probed[_READ] * 1e9, probed[_PRODUCT] * 1e12)

    def seconds(self, num_bytes: float, flops: float) -> float:
        """Return the least time for what has to be moved and computed."""
        return max(num_bytes / self.bytes_per_s, flops / self.flops_per_s)


COPY = "copy, read and written"
_READ, _PRODUCT = "read", "bfloat16 product of 8192³"


def run_probes() -> Iterator[Probe]:
    """Yield one measurement after another; needs twice 4 GiB of the GPU's memory."""
    yield Probe(_READ, _read_bytes_per_s() / 1e9, "GB/s")
    yield Probe(COPY, _copy_bytes_per_s() / 1e9, "GB/s")
    yield Probe(_PRODUCT, _bfloat16_flops() / 1e12, "TFLOP/s")
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
