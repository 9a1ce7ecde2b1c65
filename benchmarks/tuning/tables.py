"""Writes tables of launches, shape by shape: what is there is not measured again."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_check.child import time_shares
from benchmarks.gpu_check.probes import Ceilings, run_probes
from octavo.kernels.gpu.architecture import capability_of
from octavo.kernels.gpu.launch_table import LaunchTable
from octavo.kernels.gpu.launches import TABLES, Launches, gpu_name, table_path

from .subject import Subject, told
from .trials import Bench, Found, fastest

_BUDGET_S = 1500.0


def tune(
    subjects: Sequence[Subject[Any, Any]], bench: Bench, folder: Path, budget_s: float
) -> bool:
    """Measure what no table of a folder has, each in its share of the time; say if all is there.

    One whose reasoned launch fails, or is wrong, is told, and the next begun.
    """
    tables = {
        each.launches.operation: begun_table(each.launches, bench.device, folder)
        for each in subjects
    }
    missing = [
        each for each in subjects if each.shape not in tables[each.launches.operation].measured
    ]
    print(f"{len(subjects) - len(missing)} shapes are measured, {len(missing)} to come", flush=True)
    is_whole = True
    for subject, share_s in zip(missing, time_shares(budget_s, [1] * len(missing)), strict=True):
        if share_s <= 0:
            print("No time is left; another run goes on from here.")
            return False
        try:
            found = fastest(subject, bench, time.monotonic() + share_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are wanted
            print(f"{subject}: {type(error).__name__}: {error}", flush=True)
            is_whole = False
            continue
        operation = subject.launches.operation
        tables[operation] = _with(tables[operation], subject, found)
        _write(table_path(folder, tables[operation].gpu, operation), tables[operation])
        print(_line(subject, found), flush=True)
    return is_whole


def begun_table(
    launches: Launches[Any, Any], device: torch.device, folder: Path
) -> LaunchTable[Any, Any]:
    """Return the table to go on with; an empty one where there is none of these versions."""
    empty: LaunchTable[Any, Any] = LaunchTable(
        gpu_name(device), capability_of(device), _versions(), {}
    )
    path = table_path(folder, empty.gpu, launches.operation)
    if not path.exists():
        return empty
    table = launches.read(path)
    return table if replace(table, measured={}) == empty else empty


def main(description: str, subjects: Sequence[Subject[Any, Any]]) -> int:
    """Tune on this machine's GPU, as a script that is given a time and a folder."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--budget-s", type=float, default=_BUDGET_S)
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("OUT", TABLES)))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch sees no CUDA device here.", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    ceilings = Ceilings.of({probe.name: probe.value for probe in run_probes()})
    torch.cuda.empty_cache()
    bench = Bench(torch.device("cuda", torch.cuda.current_device()), ceilings)
    return 0 if tune(subjects, bench, arguments.folder, arguments.budget_s) else 1


def _with(
    table: LaunchTable[Any, Any], subject: Subject[Any, Any], found: Found[Any]
) -> LaunchTable[Any, Any]:
    return replace(table, measured={**table.measured, subject.shape: found.measured})


def _write(path: Path, table: LaunchTable[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(table.text())
    unfinished.replace(path)


def _line(subject: Subject[Any, Any], found: Found[Any]) -> str:
    measured = found.measured
    chosen = "as reasoned" if measured.launch is None else told(measured.launch._asdict())
    tried = f"{found.num_tried} tried, {found.num_refused} refused"
    limit = f"{measured.percent_of_limit} % of the limit"
    return f"{subject}: {measured.reasoned_us} to {measured.us} us, {limit}, {tried}: {chosen}"


def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in ("torch", "triton")}
