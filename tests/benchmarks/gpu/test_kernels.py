"""benchmarks.gpu_check: every kernel of its table is right, on shapes for the interpreter."""

import pytest
import torch

from benchmarks.gpu_check import kernel_case
from benchmarks.gpu_check.kernel_case import KernelCase, at_once
from benchmarks.gpu_check.kernels import GROUPS, measured
from benchmarks.gpu_check.probes import Ceilings
from tests.benchmarks.gpu.tiny_cases import tiny_cases

CEILINGS = Ceilings(1e12, 1e15)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_every_kernel_of_the_table_is_right_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # As many inputs as leave nothing in a GPU's cache would take the interpreter a minute.
    monkeypatch.setattr(kernel_case, "_MOST_INPUTS", 2)
    cases = list(tiny_cases())
    rows = list(measured(cases, DEVICE, CEILINGS))
    assert len(rows) == sum(len(case.dtypes) for case in cases)
    for row in rows:
        assert row["is_right"], row
        assert row["us"] > 0, row


def test_a_kernel_that_fails_is_told_and_the_next_begun() -> None:
    def fail(*_: object) -> torch.Tensor:
        raise RuntimeError("out of shared memory\nand more")

    (failing,) = [case for case in tiny_cases() if case.name == "rms_norm"]
    wrong = KernelCase("wrong", "5", failing.make, at_once(fail), failing.reference, failing.cost)
    told, row = measured([wrong, failing], DEVICE, CEILINGS)
    assert told == {
        "kernel": "wrong",
        "shape": "5",
        "error": "RuntimeError: out of shared memory",
    }
    assert row["is_right"]


def test_the_whole_table_can_be_made() -> None:
    names = {case.name for make in GROUPS.values() for case in make()}
    assert names == {case.name for case in tiny_cases()}
