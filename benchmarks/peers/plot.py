"""Makes a chart and the README's table of the measurements with peers.

    python -m benchmarks.peers.plot

writes benchmarks/results/peers.svg and prints the table, both from benchmarks/results/peers.json.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cyclopts

from .comparisons import OURS
from .results import DEFAULT_PATH, Rows, read
from .workloads import WORKLOADS

_WIDTH, _LABEL_WIDTH, _VALUE_WIDTH = 720, 150, 110
_BAR_HEIGHT, _BAR_STEP, _TITLE_STEP = 14, 18, 30
_OURS_COLOUR, _THEIRS_COLOUR = "#0b6e99", "#b8bec4"
_ORDER = list(WORKLOADS)
_PEERS_ORDER = ("vllm", "llama.cpp", "transformers")
_SAME_BITS = {"w8a8": "int8", "q8_0": "int8"}
"""Their format → ours, where the names differ."""
_STYLE = "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}"


@dataclass(frozen=True, slots=True)
class Chart:
    """The bars of one workload, which share a scale."""

    title: str
    speeds: dict[str, float]
    """Engine → median tokens a second, fastest first."""


def main(*, json_path: Path = DEFAULT_PATH, svg_path: Path | None = None) -> None:
    """Write the chart and print the table.

    Args:
        json_path: what benchmarks.peers.run wrote.
        svg_path: file for the chart; unset: beside the JSON.
    """
    rows = read(json_path)
    (svg_path or json_path.with_suffix(".svg")).write_text(svg(charts(rows)))
    print(table(rows))


def charts(rows: Rows) -> list[Chart]:
    """Return one chart for each workload."""
    return [_chart(name, of_workload) for name, of_workload in _by_workload(rows)]


def _chart(name: str, rows: list[dict[str, Any]]) -> Chart:
    engines = {engine for row in rows for engine in row["median_tokens_per_s"]}
    speeds = {engine: _row_of(rows, engine)["median_tokens_per_s"][engine] for engine in engines}
    return Chart(
        f"{name}: {rows[0]['title']}, {rows[0]['unit']}",
        dict(sorted(speeds.items(), key=lambda item: (-item[1], item[0]))),
    )


def _by_workload(rows: Rows) -> list[tuple[str, list[dict[str, Any]]]]:
    names = sorted({row["workload"] for row in rows.values()}, key=_ORDER.index)
    return [(name, [row for row in rows.values() if row["workload"] == name]) for name in names]


def _row_of(rows: list[dict[str, Any]], engine: str) -> dict[str, Any]:
    """Return the row that tells an engine's speed: where runs differ, that of the most rounds."""
    known = [row for row in rows if engine in row["median_tokens_per_s"]]
    return max(known, key=lambda row: int(row["rounds"]))


def svg(charts: list[Chart]) -> str:
    height = sum(_TITLE_STEP + _BAR_STEP * len(chart.speeds) for chart in charts) + 10
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    y = 0
    for chart in charts:
        lines += _bars(chart, y)
        y += _TITLE_STEP + _BAR_STEP * len(chart.speeds)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _bars(chart: Chart, y: int) -> Iterator[str]:
    yield f'<text class="title" x="8" y="{y + 20}">{escape(chart.title)}</text>'
    longest = max(chart.speeds.values())
    for i, (engine, speed) in enumerate(chart.speeds.items()):
        top = y + _TITLE_STEP + i * _BAR_STEP
        width = speed / longest * (_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH)
        colour = _OURS_COLOUR if engine.startswith(f"{OURS}:") else _THEIRS_COLOUR
        yield (
            f'<text x="{_LABEL_WIDTH - 8}" y="{top + 11}" text-anchor="end">{escape(engine)}</text>'
        )
        yield (
            f'<rect x="{_LABEL_WIDTH}" y="{top}" width="{width:.1f}" height="{_BAR_HEIGHT}" '
            f'rx="2" fill="{colour}"/>'
        )
        yield f'<text x="{_LABEL_WIDTH + width + 6:.1f}" y="{top + 11}">{_figure(speed)}</text>'


def table(rows: Rows) -> str:
    """Return Markdown: a line for each workload, a column for Octavo and each peer's format.

    A peer's cell has Octavo's ratio to it in the same bits, where both have been measured.
    """
    theirs = list(dict.fromkeys(row["theirs"] for row in rows.values()))
    theirs.sort(key=lambda engine: (_PEERS_ORDER.index(engine.partition(":")[0]), engine))
    lines = [
        f"| | Octavo | {' | '.join(engine.replace(':', ' ') for engine in theirs)} |",
        "|" + "---|" * (2 + len(theirs)),
    ]
    for _, of_workload in _by_workload(rows):
        title, unit = of_workload[0]["title"], of_workload[0]["unit"]
        cells = [f"{title}, {unit}", _our_cell(of_workload)]
        cells += [_their_cell(of_workload, engine) for engine in theirs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _our_cell(rows: list[dict[str, Any]]) -> str:
    engines = dict.fromkeys(row["ours"] for row in rows)
    speeds = {engine: _speed(_row_of(rows, engine), engine) for engine in engines}
    return ", ".join(f"{engine.partition(':')[2]} {text}" for engine, text in speeds.items())


def _their_cell(rows: list[dict[str, Any]], engine: str) -> str:
    rows = [row for row in rows if row["theirs"] == engine]
    if not rows:
        return ""
    kind = engine.partition(":")[2]
    same_bits = f"{OURS}:{_SAME_BITS.get(kind, kind)}"
    ratios = [f": **{row['ratio']:.2f} ×**" for row in rows if row["ours"] == same_bits]
    return _speed(_row_of(rows, engine), engine) + "".join(ratios)


def _speed(row: dict[str, Any], engine: str) -> str:
    """Return tokens a second, and where it was served the mean time to the first."""
    figure = _figure(row["median_tokens_per_s"][engine])
    ttft_ms = row["latencies_ms"].get(engine, {}).get("mean_ttft_ms")
    return figure if ttft_ms is None else f"{figure} ({ttft_ms / 1000:.2f} s)"


def _figure(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}"


if __name__ == "__main__":
    cyclopts.run(main)
