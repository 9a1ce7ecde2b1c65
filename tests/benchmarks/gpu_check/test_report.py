"""benchmarks.gpu_check: a run that fails or is cut short keeps what it has; errors are seen."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.gpu_check import report
from benchmarks.gpu_check.bars import bar_rows
from benchmarks.gpu_check.report import Part, Report, Row


def rows(*told: Row) -> Part:
    return Part("kernels", lambda _: iter(told), 60)


def test_a_table_that_fails_keeps_its_rows_and_does_not_stop_the_next(tmp_path: Path) -> None:
    path = tmp_path / "gpu_check.json"

    def probes(_: float) -> Iterator[Row]:
        yield {"name": "read", "value": 4000.0}
        assert json.loads(path.read_text())["probes"] == [{"name": "read", "value": 4000.0}]
        raise RuntimeError("out of memory")

    table = Report(path, {"gpu": "none"}, bar_rows)
    table.run([Part("probes", probes, 60), rows({"kernel": "linear"})], time.monotonic() + 600)
    content = json.loads(path.read_text())
    assert {each["outcome"] for each in content.pop("bars")} == {"not measured"}
    assert content == {
        "benchmark": "gpu_check",
        "machine": {"gpu": "none"},
        "probes": [
            {"name": "read", "value": 4000.0},
            {"error": "RuntimeError: out of memory"},
        ],
        "kernels": [{"kernel": "linear"}],
    }
    assert not table.is_good


def test_a_table_ends_when_its_time_is_up_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 0.0, 101.0])
    monkeypatch.setattr(report, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    table = Report(tmp_path / "gpu_check.json", {}, bar_rows)
    table.run([rows({"name": "read"}, {"name": "copy"})], deadline_s=100.0)
    assert table.tables["kernels"] == [
        {"name": "read"},
        {"error": "TimeoutError: the rest was not begun"},
    ]


def test_a_table_is_not_begun_where_no_time_is_left(tmp_path: Path) -> None:
    table = Report(tmp_path / "gpu_check.json", {}, bar_rows)
    table.run([rows({"name": "read"})], time.monotonic())
    assert table.tables["kernels"] == [{"error": "TimeoutError: not begun"}]


def test_a_table_has_what_is_kept_for_it_and_what_those_before_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    monkeypatch.setattr(report, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    limits: dict[str, float] = {}

    def taking(name: str, taken_s: float) -> Part:
        def rows(limit_s: float) -> Iterator[Row]:
            limits[name] = limit_s
            seconds[0] += taken_s
            yield {"name": name}

        return Part(name, rows, 30)

    table = Report(tmp_path / "gpu_check.json", {}, bar_rows)
    table.run([taking("quick", 10), taking("slow", 60), taking("last", 0)], deadline_s=100.0)
    assert limits == {"quick": 40, "slow": 60, "last": 30}


def test_a_run_of_right_rows_is_good_whatever_they_are_off_by(tmp_path: Path) -> None:
    table = Report(tmp_path / "gpu_check.json", {}, bar_rows)
    table.run(
        [rows({"kernel": "linear", "deviation": 1e-3, "is_right": True})], time.monotonic() + 60
    )
    assert table.is_good


@pytest.mark.parametrize(
    ("row", "is_good"),
    [({"is_right": True}, True), ({"is_right": False}, False), ({"error": "wrong"}, False)],
)
def test_a_wrong_row_makes_the_run_fail(tmp_path: Path, row: Row, is_good: bool) -> None:
    table = Report(tmp_path / "gpu_check.json", {}, bar_rows)
    table.run([rows(row)], time.monotonic() + 60)
    assert table.is_good == is_good
