"""What a GPU, our kernels and our engine on it can do; all of it within nine minutes.

    python -m benchmarks.gpu_check         (`make gpu-check` finds the Python for it)

Each table has time kept for it, whatever those before it take, and gets what they leave:

    probes      the limits of the GPU, which everything is told beside
    tests       those that need a GPU, or take one where there is one
    kernels     each against its reference and these limits; attention first
    engine      well-known models' shapes on well-known workloads; the most quoted first
    ablations   one workload with all of it, over ZeroMQ, without CUDA graphs, without overlap
    serving     all processes of a server: all requests at once, then 32, 48, 16 and 8 a second
    peer        transformers on the workload of the ablations
    profile     where the GPU's time goes in it, kernel by kernel

So what a slow machine cuts first is the end of each table, and then nothing else. gpu_check.json in
$OUT, or benchmarks/results/, is written anew after every row: a run that is ended tells what it
has, and `python -m benchmarks.gpu_check.tables FILE` shows it. The last table has our goals.
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

from .bars import bar_rows
from .engine import ablation_rows, engine_rows, peer_rows, profile_rows
from .gpu_tests import gpu_test_rows
from .kernels import kernel_rows
from .probes import Ceilings, query_gpu, run_probes
from .report import Part, Report, Row
from .serving import serving_rows
from .tables import lines_of
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
    report = Report(directory / "gpu_check.json", describe_machine(), bar_rows)
    report.run(parts(report), deadline_s)
    print(*lines_of(report.content), sep="\n")
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
        Part("probes", probes, 25),
        Part("tests", gpu_test_rows, 90),
        Part("kernels", lambda limit: kernel_rows(ceilings(), limit), 80),
        Part("engine", lambda limit: engine_rows(ENGINE, astuple(ceilings()), limit), 135),
        Part("ablations", lambda limit: ablation_rows(astuple(ceilings()), limit), 70),
        Part("serving", lambda limit: serving_rows(astuple(ceilings()), limit), 90),
        Part("peer", lambda limit: peer_rows(astuple(ceilings()), limit), 25),
        Part("profile", lambda limit: profile_rows(astuple(ceilings()), limit), 15),
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
