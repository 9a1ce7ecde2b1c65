"""benchmarks.gpu_check: an engine in a process of its own, on a model small enough for any CPU."""

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu_check import child, engine
from benchmarks.gpu_check.engine import Drive, engine_rows
from benchmarks.gpu_check.models import ModelShape
from benchmarks.gpu_check.workloads import Workload, same

TINY = ModelShape("tiny", 64, 2, 4, 2, 16, 96, 200, True)
# So low that the floor of a tiny model is more than nothing.
CEILINGS = (1e9, 1e10)
WORKLOADS = [Workload("3 of odd lengths", [(5, 3), (17, 9), (1, 1)])]


def test_what_one_leaves_of_the_time_those_after_it_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.0, 0.0, 10.0, 70.0, 100.0])
    monkeypatch.setattr(child, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    assert list(child.time_shares(90.0, 4)) == [22.5, 80 / 3, 10.0, 0.0]


def test_a_drive_says_all_of_it_to_its_process() -> None:
    drive = Drive(TINY, "/models/tiny", {"enforce_eager": True}, WORKLOADS, CEILINGS, True)
    again = Drive.from_json(drive.to_json())
    assert again.model == TINY and again.ceilings == CEILINGS and again.watches_device
    assert again.workloads[0].num_output_tokens == 13 and again.options == {"enforce_eager": True}


@pytest.mark.slow
def test_an_engine_is_measured_beside_its_floor() -> None:
    (row,) = engine_rows([(TINY, WORKLOADS)], CEILINGS, 240, {"kv_cache_memory_bytes": 10_000_000})
    assert row["model"] == "tiny" and row["workload"] == "3 of odd lengths"
    assert row["output_tok_s"] > 0 and 0 < row["percent_of_floor"] < 100


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
    (row,) = engine_rows([(TINY, WORKLOADS)], CEILINGS, limit_s, options)
    assert row["model"] == "tiny" and told in row["error"]


@pytest.mark.slow
def test_an_engine_that_lacks_something_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking: dict[str, dict[str, Any]] = {"all of it": {}, "no such thing": {"no_such": True}}
    monkeypatch.setattr(engine, "ABLATIONS", tuple(lacking.items()))
    measured, refused = engine.ablation_rows(CEILINGS, 240, (TINY, same(2, 5, 3)))
    assert measured["engine"] == "all of it" and measured["output_tok_s"] > 0
    assert refused["engine"] == "no such thing" and "no_such" in refused["error"]
