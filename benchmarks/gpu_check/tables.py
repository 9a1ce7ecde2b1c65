"""What a run has found, as tables for a terminal of 100 columns.

python -m benchmarks.gpu_check.tables FILE         (of a run that was cut short, or is long over)
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDTH = 100
_INDENT, _GAP = "    ", "  "
_LEAST_WIDTH = 8
_SMALL = 0.01

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """How rows are shown.

    Attributes:
        columns: headings, and the keys below them; a dot leads into a row within the row. The first
            column names the row.
        grouped_by: a key that rows one after another have in common.
    """

    title: str
    columns: Sequence[tuple[str, str]]
    grouped_by: str | None = None


_TABLES: Mapping[str, Table] = {
    "probes": Table("The GPU's limits", (("probe", "name"), ("value", "value"), ("unit", "unit"))),
    "tests": Table(
        "Tests on the GPU, and those that fail",
        (
            ("folder", "tests"),
            ("passed", "passed"),
            ("failed", "failed"),
            ("skipped", "skipped"),
        ),
    ),
    "kernels": Table(
        "Kernels, beside these limits",
        (
            ("shape", "shape"),
            ("right", "is_right"),
            ("off by", "deviation"),
            ("µs", "us"),
            ("GB/s", "gb_s"),
            ("TFLOP/s", "tflop_s"),
            ("%", "percent_of_roofline"),
        ),
        "kernel",
    ),
    "engine": Table(
        "The engine; steps in milliseconds, beside the least that the limits allow",
        (
            ("workload", "workload"),
            ("tok/s", "output_tok_s"),
            ("%", "percent_of_floor"),
            ("step", "step_ms_p50"),
            ("p99", "step_ms_p99"),
            ("decode", "decode_ms_p50"),
            ("%", "decode_percent_of_floor"),
            ("idle %", "gpu_idle_percent"),
            ("waste %", "kv_waste_percent"),
            ("host µs", "host_us"),
            ("GiB", "peak_gib"),
        ),
        "model",
    ),
    "ablations": Table(
        "The same without one thing after another",
        (
            ("engine", "engine"),
            ("tok/s", "output_tok_s"),
            ("%", "percent_of_floor"),
            ("decode ms", "decode_ms_p50"),
            ("p99", "decode_ms_p99"),
            ("idle %", "gpu_idle_percent"),
            ("host µs", "host_us"),
            ("changed outputs", "changed"),
        ),
    ),
    "serving": Table(
        "Through REST, by requests a second; milliseconds, and the CPU's µs of a step",
        (
            ("requests/s", "requests_s"),
            ("tok/s", "output_tok_s"),
            ("TTFT", "ttft_ms_p50"),
            ("p99", "ttft_ms_p99"),
            ("ITL", "itl_ms_p50"),
            ("p99", "itl_ms_p99"),
            ("idle %", "gpu_idle_percent"),
            ("schedule", "cpu_us_per_step.schedule"),
            ("encode", "cpu_us_per_step.encode"),
            ("send", "cpu_us_per_step.send"),
            ("decode", "cpu_us_per_step.decode"),
            ("router", "cpu_us_per_step.router"),
        ),
    ),
    "peer": Table(
        "Others, the same workload",
        (("engine", "engine"), ("tok/s", "output_tok_s"), ("seconds", "duration_s")),
    ),
    "profile": Table(
        "Where the GPU's time goes in the steps of the ablations that decode",
        (("kernel", "kernel"), ("%", "percent"), ("calls", "calls"), ("µs", "us")),
    ),
    "bars": Table(
        "What we want of an H200",
        (
            ("bar", "bar"),
            ("goal", "goal"),
            ("measured", "measured"),
            ("unit", "unit"),
            ("%", "percent"),
            ("outcome", "outcome"),
        ),
    ),
}
_NAMES = ("shape", "workload", "engine", "tests", "model", "kernel")


def lines_of(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the machine, and the tables that a report has, that of our goals last."""
    if machine := content.get("machine"):
        versions = (f"{name} {version}" for name, version in machine.items() if name != "gpu")
        yield ", ".join([machine["gpu"]["name"], *versions])
    for name, table in _TABLES.items():
        if rows := content.get(name):
            yield from ("", table.title, *_lines(table, rows))


def _lines(table: Table, rows: Sequence[Row]) -> Iterator[str]:
    cells = [[_cell(row, key) for _, key in table.columns] for row in rows if "error" not in row]
    headings = [heading for heading, _ in table.columns]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    # What is too long gives way where the row is named.
    others = sum(width + len(_GAP) for width in widths[1:])
    widths[0] = max(_LEAST_WIDTH, min(widths[0], WIDTH - len(_INDENT) - others))
    yield _line(headings, widths)
    shown, group = iter(cells), None
    for row in rows:
        if table.grouped_by is not None and row.get(table.grouped_by) != group:
            group = row.get(table.grouped_by)
            yield f"{_GAP}{group}"
        yield _error(row) if "error" in row else _line(next(shown), widths)


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    name, *others = texts
    if len(name) > widths[0]:
        name = name[: widths[0] - 1] + "…"
    padded = [f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=True)]
    return _GAP.join([f"{_INDENT}{name:<{widths[0]}}", *padded]).rstrip()


def _error(row: Row) -> str:
    """Return the end of what went wrong, where most errors say what it was."""
    name = next((f"{row[key]}: " for key in _NAMES if key in row), "")
    words = " ".join(str(row["error"]).split())
    return f"{_INDENT}{name}{words[-(WIDTH - len(_INDENT) - len(name)) :]}"


def _cell(row: Row, key: str) -> str:
    value: Any = row
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _number(value: float) -> str:
    """Return three digits, or all of those before the point."""
    size = abs(value)
    if size and size < _SMALL:
        return f"{value:.1e}"
    return f"{value:,.{0 if size >= 100 else 1 if size >= 10 else 2}f}"


def main() -> int:
    print(*lines_of(json.loads(Path(sys.argv[1]).read_text())), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
