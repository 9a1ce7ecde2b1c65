"""What a GPU and our kernels on it can do: probes, then each kernel against the CPU, then its time.

    python -m benchmarks.gpu_check        (`make gpu-check` runs the tests of tests/gpu before it)

Writes gpu_check.json into $OUT, or benchmarks/results/, after every row: a run that is cut short
tells what it has. Needs torch and nothing else of what Octavo needs.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_probes import query_gpu, run_probes, seconds_of
from benchmarks.kernel_cases import CASES, KernelCase, error_of, moved

# A table is not gone on with after it.
BUDGET_S = 480.0

# As KernelCase's errors are told; of token ids none may differ.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2**-7}

_RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "triton", "transformers")
_GPU_FIELDS = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.memory")

Row = dict[str, Any]
Table = Callable[["Report"], Iterator[Row]]


class Report:
    """The rows so far, by table, in a file that is whole at any moment."""

    def __init__(self, path: Path, machine: Row) -> None:
        self._path = path
        self.tables: dict[str, list[Row]] = {}
        self._machine = machine
        self.is_good = True
        self._write()

    def run(self, tables: dict[str, Table], deadline_s: float) -> None:
        """Fill one table after another; one that fails is told, and the next begun."""
        for name, table in tables.items():
            self.tables[name] = []
            try:
                for row in table(self):
                    self._add(name, row)
                    self.is_good &= row.get("is_right", True)
                    if time.monotonic() > deadline_s:
                        raise TimeoutError("the rest was not begun")
            except Exception as error:  # noqa: BLE001 - whatever it is, the other tables are wanted
                self._add(name, {"error": f"{type(error).__name__}: {error}"})
                self.is_good = False

    def _add(self, name: str, row: Row) -> None:
        self.tables[name].append(row)
        self._write()
        print(f"{name:<8} {'  '.join(map(str, row.values()))}", flush=True)

    def _write(self) -> None:
        content = {"benchmark": "gpu_check", "machine": self._machine, **self.tables}
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        unfinished.replace(self._path)


def probes(_: Report) -> Iterator[Row]:
    for probe in run_probes():
        yield asdict(probe) | {"value": round(probe.value, 3)}


def kernels(report: Report) -> Iterator[Row]:
    probed = {row.get("name"): row["value"] for row in report.tables["probes"] if "value" in row}
    for case in CASES:
        inputs = case.make()
        for dtype in case.dtypes:
            yield kernel_row(case, inputs, dtype, probed.get("read"))


def kernel_row(
    case: KernelCase, inputs: Sequence[torch.Tensor], dtype: torch.dtype, read_gb_s: float | None
) -> Row:
    """Compare with the CPU, then time; what is in place runs on, its time does not depend on it."""
    error = error_of(case, inputs, dtype, "cuda")
    placed = moved(inputs, dtype, "cuda")
    seconds = seconds_of(lambda: case.run(*placed))
    gb_s = case.count_bytes(placed, case.run(*placed)) / seconds / 1e9
    return {
        "kernel": case.name,
        "shape": case.shape,
        "code": "reference",
        "dtype": str(dtype).removeprefix("torch."),
        "error": float(f"{error:.2g}"),
        "is_right": error <= TOLERANCE[dtype],
        "us": round(seconds * 1e6, 1),
        "gb_s": round(gb_s, 1),
        "share_of_read": read_gb_s and round(gb_s / read_gb_s, 3),
    }


def describe_machine() -> Row:
    """Return the GPU, and the versions that its numbers depend on."""
    gpu = query_gpu(*_GPU_FIELDS) or {"name": torch.cuda.get_device_name()}
    versions = {name: _version(name) for name in _PACKAGES}
    return {"gpu": gpu, "cuda": torch.version.cuda, "python": platform.python_version()} | versions


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def main() -> int:
    if not torch.cuda.is_available():
        print("gpu_check: torch sees no CUDA device here.", file=sys.stderr)
        return 1
    directory = Path(os.environ.get("OUT", _RESULTS))
    report = Report(directory / "gpu_check.json", describe_machine())
    torch.manual_seed(0)
    report.run({"probes": probes, "kernels": kernels}, time.monotonic() + BUDGET_S)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
