"""benchmarks.peers.results and plot: rows are merged one by one; chart and table show them."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.peers.comparisons import Comparison
from benchmarks.peers.measurement import Run
from benchmarks.peers.plot import charts, svg, table
from benchmarks.peers.results import Rows, merge, read, rows_of
from benchmarks.peers.workloads import OfflineWorkload, ServedWorkload

WORKLOAD = OfflineWorkload(name="W1", num_requests=2, input_len=4, output_len=100)
SERVED = ServedWorkload(name="S16", concurrency=16, num_requests=20, input_len=8, output_len=10)


def runs(*durations_s: float, **latencies_ms: float) -> list[Run]:
    return [
        Run(
            duration_s=duration_s,
            num_input_tokens=8,
            num_output_tokens=200,
            latencies_ms=latencies_ms,
        )
        for duration_s in durations_s
    ]


def measured() -> Rows:
    comparison = Comparison(WORKLOAD, ("octavo:bf16", "octavo:int8", "vllm:bf16"), 1)
    speeds = {
        "octavo:bf16": runs(1.0, 1.0),
        "octavo:int8": runs(0.5, 0.5),
        "vllm:bf16": runs(2, 4),
    }
    return rows_of(comparison, speeds, {"cores": 2})


def test_each_format_of_ours_has_a_row_with_each_peer() -> None:
    rows = measured()
    assert list(rows) == ["W1 octavo:bf16 vllm:bf16", "W1 octavo:int8 vllm:bf16"]
    row = rows["W1 octavo:bf16 vllm:bf16"]
    assert (row["ratio"], row["rounds"]) == (3.0, 1)
    assert row["tokens_per_s"] == {"octavo:bf16": [200, 200], "vllm:bf16": [100, 50]}
    assert row["conditions"] == {"cores": 2}


def test_a_later_measurement_replaces_its_own_rows_only(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    merge(path, measured())
    again = rows_of(
        Comparison(WORKLOAD, ("octavo:bf16", "vllm:bf16"), 1),
        {"octavo:bf16": runs(1.0), "vllm:bf16": runs(1.0)},
        {},
    )
    merge(path, again)
    assert {name: row["ratio"] for name, row in read(path).items()} == {
        "W1 octavo:bf16 vllm:bf16": 1.0,
        "W1 octavo:int8 vllm:bf16": 6.0,
    }


def test_of_two_runs_chart_and_table_show_the_speed_of_the_one_with_more_rounds() -> None:
    other = Comparison(WORKLOAD, ("octavo:bf16", "llama.cpp:bf16"), 3)
    rows = measured() | rows_of(other, {engine: runs(4.0) for engine in other.engines}, {})
    (chart,) = charts(rows)
    assert chart.speeds["octavo:bf16"] == 50
    assert "| bf16 50.0, int8 400 |" in table(rows)


def test_bars_are_as_long_as_their_figures() -> None:
    root = ElementTree.fromstring(svg(charts(measured())))
    bars = [float(each.attrib["width"]) for each in root if each.attrib.get("rx")]
    figures = [float(each.text or "") for each in root if re.fullmatch(r"[\d.]+", each.text or "")]
    assert figures == [400, 200, 75]
    assert [bar / bars[0] for bar in bars] == pytest.approx([1, 0.5, 75 / 400], abs=1e-3)


def test_the_table_has_a_line_for_each_workload_and_ratios_of_the_same_bits() -> None:
    comparison = Comparison(SERVED, ("octavo:bf16", "vllm:bf16"), 1)
    served = {
        "octavo:bf16": runs(1.0, mean_ttft_ms=500.0),
        "vllm:bf16": runs(2.0, mean_ttft_ms=1250.0),
    }
    quantized = Comparison(WORKLOAD, ("octavo:int8", "llama.cpp:q8_0"), 1)
    speeds = {"octavo:int8": runs(0.5), "llama.cpp:q8_0": runs(1.0)}
    rows = measured() | rows_of(quantized, speeds, {}) | rows_of(comparison, served, {})
    assert table(rows).splitlines() == [
        "| | Octavo | vllm bf16 | llama.cpp q8_0 |",
        "|---|---|---|---|",
        "| 2 × 4/100, output tok/s | bf16 200, int8 400 | 75.0: **3.00 ×** | 200: **2.00 ×** |",
        "| served, 16 at once, 8/10, output tok/s | bf16 200 (0.50 s) "
        "| 100 (1.25 s): **2.00 ×** |  |",
    ]
