"""benchmarks.by_num_running: each number of rows is measured, printed and written."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import by_num_running


@dataclass
class Figures:
    num_running: int
    half: float


def test_what_is_printed_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "halves.json"
    monkeypatch.setattr(
        sys, "argv", ["halves", "--num-running", "1", "8", "--output-json", str(path)]
    )
    by_num_running.run("halves", None, ("running", "half"), lambda n: Figures(n, n / 2), (64,))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["running", "half"], ["1", "0.5"], ["8", "4.0"]]
    report = json.loads(path.read_text())
    assert report["benchmark"] == "halves"
    assert report["rows"] == [{"num_running": 1, "half": 0.5}, {"num_running": 8, "half": 4.0}]
