"""benchmarks.gpu_check: without a GPU it says so, and has written nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check.device_records import idle_share_of
from benchmarks.gpu_check.gpu_tests import gpu_test_rows
from tests.interpreted import ROOT


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    environment = {"PATH": "", "CUDA_VISIBLE_DEVICES": "", "OUT": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check"],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "gpu_check: torch sees no CUDA device here.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spans", "idle"),
    [
        ([(5.0, 7.0)], 0.0),
        ([(0.0, 1.0), (3.0, 4.0)], 0.5),
        ([(0.0, 3.0), (1.0, 2.0), (2.0, 4.0)], 0.0),
        ([(8.0, 10.0), (0.0, 4.0), (1.0, 2.0)], 0.4),
    ],
)
def test_idle_is_what_no_work_covers(spans: list[tuple[float, float]], idle: float) -> None:
    assert idle_share_of(spans) == pytest.approx(idle)


def test_the_tests_are_counted_and_those_that_fail_named() -> None:
    folder = "tests/benchmarks/gpu_check/test_report.py"
    (row,) = gpu_test_rows(60, [folder])
    assert row == {"tests": folder, "passed": 7, "skipped": 0, "failed": 0, "is_right": True}


def test_tests_that_are_not_done_in_time_are_told_and_the_next_begun() -> None:
    folders = ["tests/benchmarks/gpu_check/test_report.py"] * 2
    rows = list(gpu_test_rows(0.02, folders))
    assert [row["tests"] for row in rows] == folders
    assert all("timed out" in row["error"] for row in rows)
