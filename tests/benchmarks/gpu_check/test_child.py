"""benchmarks.gpu_check: rows come from a process of their own, whatever else that says."""

import time
from pathlib import Path

import pytest

from benchmarks.gpu_check import child


def test_rows_are_told_from_what_libraries_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "__package__", "tests.benchmarks.gpu_check")
    rows = list(child.child_rows({"kernel": "all"}, "talkative_child", [], 60.0))
    assert rows == [{"kernel": "linear"}, {"kernel": "moe"}]


def is_running(pid: int) -> bool:
    """Say whether a process has not ended; who has ended may still be in the table."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_what_a_process_has_started_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "__package__", "tests.benchmarks.gpu_check")
    rows = child.child_rows({"kernel": "all"}, "lasting_child", [], 60.0)
    pid = next(rows)["pid"]
    assert is_running(pid)
    rows.close()
    ends_s = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < ends_s
        time.sleep(0.01)
