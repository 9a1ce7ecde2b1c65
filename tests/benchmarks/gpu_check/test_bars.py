"""benchmarks.gpu_check: goals are met or missed by the figures of a run, and by nothing else."""

import json
from typing import Any

import pytest

from benchmarks.gpu_check.attention_cases import BALANCED, DECODES, UNBALANCED
from benchmarks.gpu_check.bars import AT_ONCE, BARS, Bar
from benchmarks.gpu_check.engine import ABLATIONS
from benchmarks.gpu_check.kernels import GROUPS
from benchmarks.gpu_check.probes import COPY
from benchmarks.gpu_check.workloads import ABLATION, ENGINE


def everything() -> dict[str, list[dict[str, Any]]]:
    """The rows of a whole run, their figures all 4."""
    figures = dict.fromkeys(
        ("output_tok_s", "decode_ms_p50", "percent_of_floor", "gpu_idle_percent"), 4.0
    )
    kernels = [case for name in ("decode", "prefill") for case in GROUPS[name]()]
    return {
        "probes": [{"name": COPY, "value": 4.0}],
        "tests": [
            {"tests": "tests/gpu", "failed": 4},
            {"tests": "tests.gpu.test_engine.test_tokens", "is_right": False},
        ],
        "kernels": [
            {"kernel": case.name, "shape": case.shape, "us": 4.0, "gb_s": 4.0, "tflop_s": 4.0}
            for case in kernels
        ],
        "engine": [
            {"model": case.model.name, "workload": workload.name} | figures
            for case in ENGINE
            for workload in case.workloads
        ],
        "ablations": [
            {"engine": name, "changed": 4} | figures for name, module, lacking in ABLATIONS
        ],
        "serving": [{"requests_s": AT_ONCE} | figures],
        "peer": [{"workload": ABLATION.workloads[0].name} | figures],
    }


def test_every_goal_is_measured_by_a_whole_run_and_none_by_an_empty_one() -> None:
    found = [bar.row(everything()) for bar in BARS]
    assert [row["bar"] for row in found if row["outcome"] == "not measured"] == []
    assert {bar.row({})["outcome"] for bar in BARS} == {"not measured"}
    json.dumps(found)


@pytest.mark.parametrize(
    ("is_most", "value", "percent", "outcome"),
    [
        (True, 3.9, 100, "met"),
        (True, 7.8, 50, "missed"),
        (False, 3.9, 100, "met"),
        (False, 7.8, 200, "met"),
        (False, 1.95, 50, "missed"),
        (True, 0.0, None, "met"),
    ],
)
def test_a_goal_is_met_at_100_percent_of_it(
    is_most: bool, value: float, percent: int | None, outcome: str
) -> None:
    row = Bar("alone", 3.9, "ms", is_most, lambda _: value).row({})
    assert (row["percent"], row["outcome"]) == (percent, outcome)


@pytest.mark.parametrize("wrong", [{"is_right": False}, {"error": "1 request failed"}])
def test_what_is_wrong_is_no_figure(wrong: dict[str, Any]) -> None:
    tables = everything()
    for row in tables["serving"]:
        row.update(wrong)
    by_name = {bar.name: bar.row(tables)["outcome"] for bar in BARS}
    assert by_name["8B, ShareGPT's lengths through REST"] == "not measured"


def test_tests_that_were_not_done_are_none_that_pass() -> None:
    tables = everything()
    tables["tests"].append({"tests": "tests/worker/gpu", "error": "timed out"})
    assert BARS[0].row(tables)["outcome"] == "not measured"


def test_uneven_requests_read_as_much_as_even_ones() -> None:
    assert UNBALANCED in DECODES and BALANCED in DECODES
    uneven, even = (
        sum(count * length for count, length in each) for each in (UNBALANCED, BALANCED)
    )
    assert uneven == even
