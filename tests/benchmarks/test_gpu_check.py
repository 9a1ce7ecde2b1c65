"""benchmarks.gpu_check: a run that fails or is cut short keeps what it has; errors are seen."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu_check import Report, Row
from benchmarks.kernel_cases import KernelCase, error_of


def case(run: Any) -> KernelCase:
    return KernelCase("doubled", "4", lambda: [torch.randn(4)], run, lambda *_: 16)


def test_a_table_that_fails_keeps_its_rows_and_does_not_stop_the_next(tmp_path: Path) -> None:
    path = tmp_path / "gpu_check.json"

    def probes(_: Report) -> Iterator[Row]:
        yield {"name": "read", "value": 4000.0}
        assert json.loads(path.read_text())["probes"] == [{"name": "read", "value": 4000.0}]
        raise RuntimeError("out of memory")

    report = Report(path, {"gpu": "none"})
    report.run(
        {"probes": probes, "kernels": lambda _: iter([{"kernel": "linear"}])},
        time.monotonic() + 60,
    )
    assert json.loads(path.read_text()) == {
        "benchmark": "gpu_check",
        "machine": {"gpu": "none"},
        "probes": [
            {"name": "read", "value": 4000.0},
            {"error": "RuntimeError: out of memory"},
        ],
        "kernels": [{"kernel": "linear"}],
    }
    assert not report.is_good


def test_a_table_ends_when_time_is_up_and_says_so(tmp_path: Path) -> None:
    report = Report(tmp_path / "gpu_check.json", {})
    report.run({"probes": lambda _: iter([{"name": "read"}, {"name": "copy"}])}, time.monotonic())
    assert report.tables["probes"] == [
        {"name": "read"},
        {"error": "TimeoutError: the rest was not begun"},
    ]


@pytest.mark.parametrize(("is_right", "expected"), [(True, True), (False, False)])
def test_a_wrong_kernel_makes_the_run_fail(tmp_path: Path, is_right: bool, expected: bool) -> None:
    report = Report(tmp_path / "gpu_check.json", {})
    report.run({"kernels": lambda _: iter([{"is_right": is_right}])}, time.monotonic() + 60)
    assert report.is_good == expected


def test_an_error_is_told_relative_to_the_numbers_and_a_nan_is_none() -> None:
    rounding = error_of(case(lambda x: 2 * x), [torch.randn(1000)], torch.bfloat16, "cpu")
    assert rounding == 0
    seen: list[torch.Tensor] = []

    def wrong_the_second_time(x: torch.Tensor, by: float) -> torch.Tensor:
        seen.append(x)
        return 1000 * torch.ones_like(x) + (by if len(seen) % 2 == 0 else 0)

    for by, expected in ((2.0, 0.001), (math.nan, math.inf)):
        wrong = case(lambda x, by=by: wrong_the_second_time(x, by))
        error = error_of(wrong, [torch.ones(8)], torch.float32, "cpu")
        assert error == pytest.approx(expected)


def test_of_token_ids_the_error_is_how_many_differ() -> None:
    answers = iter([torch.tensor([1, 2, 3]), torch.tensor([1, 5, 4])])
    assert error_of(case(lambda _: next(answers)), [torch.ones(1)], torch.float32, "cpu") == 2


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_check.main() == 1
    assert capsys.readouterr().err == "gpu_check: torch sees no CUDA device here.\n"
