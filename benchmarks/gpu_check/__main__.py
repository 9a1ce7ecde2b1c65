"""What a GPU, our kernels and our engine on it can do; all of it within nine minutes.

    python -m benchmarks.gpu_check         (`make gpu-check` finds the Python for it)

The tests on the GPU, probes, each kernel against its reference and the GPU's limits, the engine on
shapes of well-known models, that without one thing after another, and transformers beside it.
Writes gpu_check.json into $OUT, or benchmarks/results/, after every row: a run that is cut short
tells what it has.
"""

import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple
from importlib import metadata
from pathlib import Path

import torch

from .engine import ablation_rows, engine_rows, peer_rows
from .gpu_tests import gpu_test_rows
from .kernels import kernel_rows
from .probes import Ceilings, query_gpu, run_probes
from .report import Part, Report, Row
from .workloads import ENGINE

BUDGET_S = 530.0

_RESULTS = Path(__file__).parents[1] / "results"
_PACKAGES = ("torch", "triton", "transformers")
_GPU_FIELDS = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.memory")


def main() -> int:
    if not torch.cuda.is_available():
        print("gpu_check: torch sees no CUDA device here.", file=sys.stderr)
        return 1
    deadline_s = time.monotonic() + BUDGET_S
    directory = Path(os.environ.get("OUT", _RESULTS))
    report = Report(directory / "gpu_check.json", describe_machine())
    report.run(parts(report), deadline_s)
    return 0 if report.is_good else 1


def parts(report: Report) -> list[Part]:
    """Return the tables; those after the probes are told what these have found."""

    def probes(_: float) -> Iterator[Row]:
        for probe in run_probes():
            yield asdict(probe) | {"value": round(probe.value, 3)}
        # What they measured with is wanted by the other processes.
        torch.cuda.empty_cache()

    def ceilings() -> Ceilings:
        return Ceilings.of({row["name"]: row["value"] for row in report.tables["probes"]})

    return [
        Part("probes", probes, 30),
        Part("tests", gpu_test_rows, 150),
        Part("kernels", lambda limit: kernel_rows(ceilings(), limit), 100),
        Part("engine", lambda limit: engine_rows(ENGINE, astuple(ceilings()), limit), 180),
        Part("ablations", lambda limit: ablation_rows(astuple(ceilings()), limit), 80),
        Part("peer", lambda limit: peer_rows(astuple(ceilings()), limit), 60),
    ]


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


if __name__ == "__main__":
    sys.exit(main())
