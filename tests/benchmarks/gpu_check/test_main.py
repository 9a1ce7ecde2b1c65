"""benchmarks.gpu_check: without a GPU it says so, and has written nothing."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check.bars import bar_rows
from benchmarks.gpu_check.gpu_tests import gpu_test_rows
from benchmarks.gpu_check.probes import Ceilings
from benchmarks.gpu_check.report import Report, Row
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


def test_what_every_table_needs_is_there_within_nine_minutes(tmp_path: Path) -> None:
    parts = gpu_check.parts(Report(tmp_path / "gpu_check.json", {}, bar_rows))
    names = [part.name for part in parts]
    first, others = names[:4], names[4:]
    assert first == ["probes", "tests", "kernels", "engine"]
    assert others == ["ablations", "serving", "peer", "profile"]
    assert sum(part.needs_s for part in parts) <= gpu_check.BUDGET_S < 9 * 60


def test_everything_is_told_beside_what_the_probes_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def rows(ceilings: object, *_: object) -> Iterator[Row]:
        told.append(ceilings)
        return iter(())

    report = Report(tmp_path / "gpu_check.json", {}, bar_rows)
    report.tables["probes"] = [
        {"name": "read", "value": 4000.0},
        {"name": "bfloat16 product of 8192³", "value": 700.0},
    ]
    monkeypatch.setattr(gpu_check, "kernel_rows", rows)
    monkeypatch.setattr(gpu_check, "ablation_rows", rows)
    for part in gpu_check.parts(report):
        if part.name in ("kernels", "ablations"):
            assert list(part.rows(60.0)) == []
    assert told == [Ceilings(4e12, 7e14), (4e12, 7e14)]


def test_the_tests_are_counted_and_those_that_fail_named() -> None:
    folder = "tests/benchmarks/gpu_check/test_report.py"
    (row,) = gpu_test_rows(60, {folder: 1})
    assert row == {"tests": folder, "passed": 8, "skipped": 0, "failed": 0, "is_right": True}


def test_tests_that_are_not_done_in_time_are_told_and_the_next_begun() -> None:
    folders = {f"tests/benchmarks/gpu_check/test_{name}.py": 1.0 for name in ("report", "bars")}
    rows = list(gpu_test_rows(0.02, folders))
    assert [row["tests"] for row in rows] == list(folders)
    assert all("timed out" in row["error"] for row in rows)
