"""benchmarks.gpu_check: an engine in a process of its own, on a model small enough for any CPU."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu_check import child, engine
from benchmarks.gpu_check.engine import Drive, engine_rows
from benchmarks.gpu_check.models import ModelShape
from benchmarks.gpu_check.report import Row
from benchmarks.gpu_check.serving import serving_rows
from benchmarks.gpu_check.workloads import Case, Workload, same

TINY = ModelShape("tiny", 64, 2, 4, 2, 16, 96, 200, True)
# So low that the floor of a tiny model is more than nothing.
CEILINGS = (1e9, 1e10)
OPTIONS: dict[str, Any] = {"kv_cache_memory_bytes": 10_000_000}
WORKLOADS = [Workload("3 of odd lengths", [(5, 3), (17, 9), (1, 1)])]


def test_what_one_leaves_of_the_time_those_after_it_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 0.0, 10.0, 70.0, 100.0])
    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    assert list(child.time_shares(90.0, [2, 1, 1, 2])) == [30, 20, 20 / 3, 0]


def test_a_drive_says_all_of_it_to_its_process() -> None:
    case = Case(TINY, WORKLOADS, {"enforce_eager": True}, itemsize=1)
    drive = Drive(case, "/models/tiny", CEILINGS)
    again = Drive.from_json(drive.to_json())
    assert again.case.model == TINY and again.ceilings == CEILINGS
    assert again.case.options == {"enforce_eager": True} and again.case.itemsize == 1
    assert again.case.workloads[0].num_output_tokens == 13


@pytest.mark.slow
def test_an_engine_is_measured_beside_its_floor() -> None:
    (row,) = engine_rows([Case(TINY, WORKLOADS, OPTIONS)], CEILINGS, 240)
    assert row["model"] == "tiny" and row["workload"] == "3 of odd lengths"
    assert row["output_tok_s"] > 0 and 0 < row["percent_of_floor"] < 100
    # As many steps as the longest output, prompts in the first; some decode alone.
    assert row["num_steps"] >= 9 and 0 < row["decode_ms_p50"] <= row["decode_ms_p99"]
    assert 0 < row["kv_waste_percent"] < 100 and 0 <= row["gpu_idle_percent"] < 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit_s", "options", "told"),
    [
        (240.0, {"block_size": 0}, "block"),
        (240.0, {"no_such": 1}, "no option no_such"),
        (0.1, {}, "not done after 0 s"),
    ],
)
def test_an_engine_that_fails_or_takes_too_long_is_told(
    limit_s: float, options: dict[str, Any], told: str
) -> None:
    (row,) = engine_rows([Case(TINY, WORKLOADS, options)], CEILINGS, limit_s)
    assert row["model"] == "tiny" and told in row["error"]


@pytest.mark.slow
def test_engines_that_lack_something_are_measured_and_have_the_same_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = ("no such thing", "drive", {"no_such": True})
    monkeypatch.setattr(engine, "ABLATIONS", (*engine.ABLATIONS[:3], refused))
    rows = list(engine.ablation_rows(CEILINGS, 240, Case(TINY, [same(3, 20, 6)], OPTIONS)))
    assert [row["engine"] for row in rows] == [name for name, _, _ in engine.ABLATIONS]
    for row in rows[:-1]:
        assert row["output_tok_s"] > 0 and row["decode_ms_p50"] > 0, row
    assert rows[1]["cpu_us_per_step"]["encode"] > 0 and rows[1]["num_steps"] > 0
    assert [row.get("changed") for row in rows] == [None, None, 0, None]
    assert "no_such" in rows[-1]["error"]


def test_an_output_that_is_another_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([["a", "b", "c"], None, ["a", "b", "c"], ["a", "x", "y"]])

    def rows(*_: object) -> Iterator[Row]:
        outputs = next(told)
        yield {} if outputs is None else {"outputs": outputs}

    monkeypatch.setattr(Drive, "rows", rows)
    found = list(engine.ablation_rows(CEILINGS, 240, Case(TINY, [same(3, 5, 3)])))
    assert [row.get("changed") for row in found] == [None, None, 0, 2]
    assert [row.get("is_right") for row in found] == [None, None, True, False]


@pytest.mark.slow
def test_a_server_is_measured_by_what_its_clients_see() -> None:
    workloads = [same(3, 5, 4), Workload("4 x 5/4", [(5, 4)] * 4, 50.0)]
    at_once, at_rate = serving_rows(CEILINGS, 240, Case(TINY, workloads, OPTIONS))
    assert (at_once["requests_s"], at_rate["requests_s"]) == ("all at once", 50.0)
    for row, count in ((at_once, 3), (at_rate, 4)):
        assert row["completed"] == count and "error" not in row
        assert row["output_tok_s"] > 0 and 0 < row["ttft_ms_p50"] <= row["ttft_ms_p99"]
        assert row["itl_ms_p50"] <= row["itl_ms_p99"] and row["num_steps"] >= 4
        costs = row["cpu_us_per_step"]
        assert set(costs) >= {"schedule", "encode", "send", "decode", "router", "gateway"}
