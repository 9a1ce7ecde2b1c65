"""Measures what this machine can do at most, so that a kernel's speed can be told as a share of it.

    python -m benchmarks.machine_limits [--threads N]

Peak multiply-adds come from registers alone, the bandwidth from reading more than caches hold.
"""

import argparse
import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from octavo.kernels.cpu import build

_SOURCE = Path(__file__).with_suffix(".cpp")


@dataclass(frozen=True)
class MachineLimits:
    """For the number of threads that torch is set to."""

    num_threads: int
    float32_flops: float
    bfloat16_flops: float
    int8_ops: float
    read_bytes_per_s: float

    def flops(self, dtype: torch.dtype) -> float:
        return self.float32_flops if dtype == torch.float32 else self.bfloat16_flops

    def __str__(self) -> str:
        return (
            f"{self.num_threads} threads: float32 {self.float32_flops / 1e9:.0f} GF/s, "
            f"bfloat16 {self.bfloat16_flops / 1e9:.0f} GF/s, int8 {self.int8_ops / 1e9:.0f} GOP/s, "
            f"memory {self.read_bytes_per_s / 1e9:.1f} GB/s"
        )


def seconds_of(run: Callable[[], object], *, budget_s: float = 0.5) -> float:
    """The shortest of as many runs as fit in the budget, after one to warm up."""
    run()
    best = float("inf")
    end = time.perf_counter() + budget_s
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def measure_limits() -> MachineLimits:
    library = compile_library()
    num_threads = torch.get_num_threads()
    library.set_num_threads(ctypes.c_int64(num_threads))
    sink = torch.zeros(16 * num_threads)
    # numpy's, because they lie in huge pages, as weights do.
    data = torch.from_numpy(np.ones(64 * 2**20, np.float32))
    count = 200_000

    def per_s(dtype: str) -> float:
        multiply_add = getattr(library, f"multiply_add_{dtype}")
        shortest_s = seconds_of(lambda: multiply_add(count, _pointer(sink)))
        per_count = getattr(library, f"{dtype}_per_count")()
        return float(2 * count * per_count * num_threads / shortest_s)

    read = (_pointer(data), ctypes.c_int64(data.numel()), _pointer(sink))
    read_s = seconds_of(lambda: library.read_memory(*read))
    return MachineLimits(
        num_threads=num_threads,
        float32_flops=per_s("float32"),
        bfloat16_flops=per_s("bfloat16"),
        int8_ops=per_s("int8"),
        read_bytes_per_s=data.numel() * data.element_size() / read_s,
    )


def compile_library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "machine_limits.so"
        command = [*build.find_compiler(), *build.FLAGS, *build.VARIANTS[0], "-shared"]
        command += [f"-I{build.SOURCE_FOLDER}", str(_SOURCE), "-o", str(target)]
        command.append(str(build.SOURCE_FOLDER / "thread_pool.cpp"))
        subprocess.run(command, check=True, timeout=60)
        return ctypes.CDLL(str(target))


def _pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    print(measure_limits())


if __name__ == "__main__":
    main()
