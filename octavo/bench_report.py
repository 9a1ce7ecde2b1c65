"""The results of a benchmark: a table for people, JSON for programs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from .startup import StartupError


def spread_ms(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return mean, median and 99th percentile in milliseconds; None of nothing.

    A percentile is the smallest value that so many percent of all do not exceed.
    """
    if not seconds:
        return None
    ordered = sorted(seconds)

    def percentile(percent: int) -> float:
        return ordered[math.ceil(percent / 100 * len(ordered)) - 1]

    values = {"mean": sum(ordered) / len(ordered), "p50": percentile(50), "p99": percentile(99)}
    return {name: round(value * 1e3, 3) for name, value in values.items()}


def check_writable(path: Path | None) -> None:
    """Raise StartupError, before anything is measured, if the results could not be kept."""
    if path is not None:
        _write(path, "{}\n")


def report(title: str, results: Mapping[str, Any], path: Path | None) -> None:
    """Print the results as a table, and write them to `path`."""
    table = Table("", title, box=box.SIMPLE_HEAD, show_edge=False)
    table.columns[1].justify = "right"
    for name, value in results.items():
        if isinstance(value, dict):
            for statistic, number in value.items():
                table.add_row(f"{name} {statistic}", _shown(number))
        elif value is not None:
            table.add_row(name, _shown(value))
    Console().print(table)
    if path is not None:
        _write(path, json.dumps(results, indent=2) + "\n")


def _shown(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise StartupError(f"--output-json {path}: cannot be written: {error.strerror}.") from error
