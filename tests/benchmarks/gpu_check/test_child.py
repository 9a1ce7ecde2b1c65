"""benchmarks.gpu_check: rows come from a process of their own, whatever else that says."""

import pytest

from benchmarks.gpu_check import child


def test_rows_are_told_from_what_libraries_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "__package__", "tests.benchmarks.gpu_check")
    rows = list(child.child_rows({"kernel": "all"}, "talkative_child", [], 60.0))
    assert rows == [{"kernel": "linear"}, {"kernel": "moe"}]
