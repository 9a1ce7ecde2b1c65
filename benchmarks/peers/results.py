"""benchmarks/results/peers.json: one row for each workload, format of ours and engine of theirs."""

import dataclasses
import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .comparisons import Comparison
from .measurement import Run, ratio

DEFAULT_PATH = Path("benchmarks/results/peers.json")

Rows = dict[str, dict[str, Any]]


def rows_of(
    comparison: Comparison, runs: Mapping[str, Sequence[Run]], conditions: Mapping[str, Any]
) -> Rows:
    """Return the rows of one comparison; each has all that its ratio was made of."""
    workload = comparison.workload
    rows = {}
    for ours, theirs in comparison.pairs():
        speeds = {
            name: [round(run.tokens_per_s(workload), 2) for run in runs[name]]
            for name in (ours, theirs)
        }
        rows[f"{workload.name} {ours} {theirs}"] = {
            "workload": workload.name,
            "title": workload.title,
            "unit": "total tok/s" if workload.counts_input else "output tok/s",
            "ours": ours,
            "theirs": theirs,
            "rounds": comparison.rounds,
            "ratio": round(ratio(speeds[ours], speeds[theirs]), 3),
            "tokens_per_s": speeds,
            "median_tokens_per_s": {
                name: round(statistics.median(each), 1) for name, each in speeds.items()
            },
            "latencies_ms": {
                name: _median_latencies(runs[name])
                for name in (ours, theirs)
                if runs[name][0].latencies_ms
            },
            "conditions": dict(conditions),
        }
    return rows


def merge(path: Path, rows: Rows) -> None:
    """Put rows into the file in place of those of the same names."""
    kept = read(path) | rows
    text = json.dumps({"benchmark": "peers", "rows": dict(sorted(kept.items()))}, indent=1)
    part = path.with_suffix(".part")
    part.write_text(text + "\n")
    part.replace(path)


def read(path: Path) -> Rows:
    if not path.exists():
        return {}
    rows: Rows = json.loads(path.read_text())["rows"]
    return rows


def describe_machine(limits: Any) -> dict[str, Any]:
    """Return processor, cores, commit and the limits measured just now."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2] for line in cpuinfo.splitlines() if "model name" in line]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "processor": models[0].strip() if models else "unknown",
        "cores": os.cpu_count(),
        "commit": commit.stdout.strip(),
        "limits": {k: float(f"{v:.4g}") for k, v in dataclasses.asdict(limits).items()},
    }


def _median_latencies(runs: Sequence[Run]) -> dict[str, float]:
    return {
        name: round(statistics.median(run.latencies_ms[name] for run in runs), 1)
        for name in runs[0].latencies_ms
    }
