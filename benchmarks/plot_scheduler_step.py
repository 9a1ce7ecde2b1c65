"""Draws how a step of the scheduler grows with the rows that run, and prints the README's table.

    python -m benchmarks.plot_scheduler_step

reads benchmarks/results/scheduler_step.json, which benchmarks.bench_scheduler_step wrote, and
writes scheduler_step.svg beside it.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cyclopts

DEFAULT_PATH = Path("benchmarks/results/scheduler_step.json")

# What is drawn, and how: the whole step stands out.
_SERIES = {
    "joining_us": ("with one joining", "#d49b17", 1.5),
    "total_us": ("whole step", "#0b6e99", 2.5),
    "schedule_us": ("schedule", "#c2571a", 1.5),
    "update_us": ("update", "#5b8c2a", 1.5),
    "outputs_us": ("outputs", "#8a5fb0", 1.5),
    "encode_us": ("encode", "#8b949e", 1.5),
}
_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 120, 40, 46
_STYLE = "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}"
_GRID_COLOUR = "#e4e7eb"

Row = dict[str, Any]


def main(*, json_path: Path = DEFAULT_PATH, svg_path: Path | None = None) -> None:
    """Write the chart and print the table.

    Args:
        json_path: what benchmarks.bench_scheduler_step wrote.
        svg_path: file for the chart; unset: beside the JSON.
    """
    rows = json.loads(json_path.read_text())["rows"]
    (svg_path or json_path.with_suffix(".svg")).write_text(svg(rows))
    print(table(rows))


def svg(rows: Sequence[Row]) -> str:
    """Return a chart with logarithmic axes, on which a cost that is linear rises by as much."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{_LEFT}" y="22">A step of the scheduler, µs of CPU time</text>',
        *_grid(rows),
    ]
    for field in _SERIES:
        lines += _series(rows, field)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _grid(rows: Sequence[Row]) -> Iterator[str]:
    for exponent in range(_decade(rows, min), _decade(rows, max) + 2):
        y = _y(rows, 10.0**exponent)
        yield f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_GRID_COLOUR}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:,}</text>'
    for row in rows:
        x, number = _x(rows, row), row["num_running"]
        yield f'<path d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="{_GRID_COLOUR}"/>'
        yield (
            f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{number:,}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">rows that run</text>'


def _series(rows: Sequence[Row], field: str) -> Iterator[str]:
    """Yield a line with its points, and its name at the end."""
    name, colour, width = _SERIES[field]
    points = [(_x(rows, row), _y(rows, row[field])) for row in rows]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    x, y = points[-1]
    yield f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" style="fill:{colour}">{name}</text>'


def _x(rows: Sequence[Row], row: Row) -> float:
    first, last = (math.log(rows[i]["num_running"]) for i in (0, -1))
    share = (math.log(row["num_running"]) - first) / (last - first)
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(rows: Sequence[Row], us: float) -> float:
    lowest, highest = _decade(rows, min), _decade(rows, max) + 1
    share = (math.log10(us) - lowest) / (highest - lowest)
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _decade(rows: Sequence[Row], extreme: Any) -> int:
    """Return the power of ten at or below the smallest or largest figure of the chart."""
    return math.floor(math.log10(extreme(row[field] for row in rows for field in _SERIES)))


def table(rows: Sequence[Row]) -> str:
    """Return Markdown: a line for each number of rows, with the cost of one of them at the end."""
    names = [name for name, _, _ in _SERIES.values()]
    lines = [
        f"| rows that run | {' | '.join(names)} | a row | plan |",
        "|---" * (len(names) + 3) + "|",
    ]
    for row in rows:
        number = row["num_running"]
        cells = [f"{row[field]:,.0f} µs" for field in _SERIES]
        cells += [f"{row['total_us'] / number:.2f} µs", f"{row['plan_bytes']:,} bytes"]
        lines.append(f"| {number:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    cyclopts.run(main)
