"""The results of a benchmark: a table for people, JSON for programs."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    print(*_lines(title, results), sep="\n")
    if path is not None:
        _write(path, json.dumps(results, indent=2) + "\n")


def _lines(title: str, results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the single numbers, one a line, then the spreads, with a column for each statistic."""
    numbers = {name: value for name, value in results.items() if isinstance(value, int | float)}
    spreads = {name: value for name, value in results.items() if isinstance(value, dict)}
    width = max(map(len, results))
    yield f"{title}\n"
    for name, number in numbers.items():
        yield f"  {name:<{width}}  {_shown(number):>12}"
    if spreads:
        statistics = next(iter(spreads.values()))
        yield f"\n  {'':<{width}}  " + "".join(f"{name:>12}" for name in statistics)
    for name, spread in spreads.items():
        yield f"  {name:<{width}}  " + "".join(f"{_shown(value):>12}" for value in spread.values())


def _shown(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise StartupError(f"--output-json {path}: cannot be written: {error.strerror}.") from error
