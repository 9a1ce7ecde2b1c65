"""benchmarks.gpu_check: penalties, log-probabilities and experts are right, and timed."""

import pytest
import torch

from benchmarks.gpu_check import kernel_case
from benchmarks.gpu_check.expert_cases import expert_cases
from benchmarks.gpu_check.kernel_case import kernel_row
from benchmarks.gpu_check.logit_cases import logit_cases
from benchmarks.gpu_check.probes import Ceilings

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_every_case_is_right_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_case, "_MOST_INPUTS", 1)
    cases = [*logit_cases(200, 3), *expert_cases(5, 48, 32, 4, 2)]
    for case in cases:
        row = kernel_row(case, case.dtypes[0], DEVICE, Ceilings(1e12, 1e15))
        assert row["is_right"], row
        assert row["us"] > 0, row
