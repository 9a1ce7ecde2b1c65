"""benchmarks.tuning: what is faster and right gets into a table, and is launched from there."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_check import kernel_case
from benchmarks.gpu_check.kernel_case import TOLERANCE, error_of
from benchmarks.gpu_check.probes import Ceilings
from benchmarks.tuning import tables
from benchmarks.tuning.attention import attention_subjects, decode_subject, prefill_subject
from benchmarks.tuning.products import (
    block_scaled_subject,
    expert_subject,
    product_subjects,
    scaled_subject,
    w4a16_subject,
)
from benchmarks.tuning.subject import Subject, around
from benchmarks.tuning.tables import begun_table, tune
from benchmarks.tuning.trials import Bench
from octavo.kernels.gpu import decode_work, moe, prefill_attention, scaled_linear, w4a16_linear
from octavo.kernels.gpu.architecture import ARCHITECTURES, architecture_of
from octavo.kernels.gpu.launches import gpu_name, table_path
from tests.benchmarks.gpu.tiny_cases import TINY

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
FP8 = torch.float8_e4m3fn
Calls = Sequence[Callable[[], object]]

# Each with the module that launches it, the name it has there, and what else is tried.
TINY_SUBJECTS = {
    "decode": (decode_work, "LAUNCHES", decode_subject(TINY, [[(1, 50)]], 2), {"tile": [16]}),
    "decode, fp8": (
        decode_work,
        "LAUNCHES",
        decode_subject(TINY, [[(1, 50)], [(2, 3)]], 1),
        {"num_warps": [8]},
    ),
    "prefill": (
        prefill_attention,
        "LAUNCHES",
        prefill_subject(TINY, [[(9, 40), (5, 5)]], 2),
        {"rows": [64], "tile": [16]},
    ),
    "scaled": (scaled_linear, "LAUNCHES", scaled_subject(5, 96, 100, FP8), {"block_n": [64]}),
    "int8": (scaled_linear, "LAUNCHES", scaled_subject(5, 96, 100, torch.int8), {"block_k": [32]}),
    "scaled in blocks": (
        scaled_linear,
        "BLOCK_LAUNCHES",
        block_scaled_subject(5, 200, 100),
        {"block_n": [64], "block_k": [128]},
    ),
    "w4a16": (w4a16_linear, "LAUNCHES", w4a16_subject(5, 128, 100), {"block_n": [64]}),
    "experts": (moe, "LAUNCHES", expert_subject(5, 48, 32, 4, 2), {"block_m": [32]}),
}


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_case, "_MOST_INPUTS", 1)


def in_folder(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Subject[Any, Any]:
    """Return a tiny subject whose launches, and those of its kernel, come from a folder."""
    module, attribute, subject, choices = TINY_SUBJECTS[name]
    launches = replace(subject.launches, folder=folder)
    monkeypatch.setattr(module, attribute, launches)
    return replace(subject, launches=launches, choices=choices)


def bench_that_prefers(subject: Subject[Any, Any], wanted: object, gain: float = 2.0) -> Bench:
    """Return a bench on which one launch is faster than the others."""

    def seconds_of(calls: Calls) -> float:
        launch = subject.launches.choose(subject.shape, DEVICE)
        return 1e-3 / gain if launch == wanted else 1e-3

    return Bench(DEVICE, Ceilings(1e12, 1e15), seconds_of)


def other_launch(subject: Subject[Any, Any]) -> Any:
    (other,) = subject.candidates(reasoned_launch(subject))
    return other


def reasoned_launch(subject: Subject[Any, Any]) -> Any:
    return subject.launches.reasoned(subject.shape, architecture_of(DEVICE))


def measured_in(subject: Subject[Any, Any], folder: Path) -> Any:
    table = subject.launches.read(table_path(folder, gpu_name(DEVICE), subject.launches.operation))
    return table.measured[subject.shape]


@pytest.mark.parametrize("name", TINY_SUBJECTS)
def test_a_faster_launch_is_written_and_then_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = in_folder(name, tmp_path, monkeypatch)
    faster = other_launch(subject)
    assert tune([subject], bench_that_prefers(subject, faster), tmp_path, budget_s=600)
    measured = measured_in(subject, tmp_path)
    assert (measured.launch, measured.reasoned_us, measured.us) == (faster, 1000.0, 500.0)

    serving = in_folder(name, tmp_path, monkeypatch)
    assert serving.launches.choose(serving.shape, DEVICE) == faster
    for case in serving.cases:
        error = error_of(case, case.make(str(DEVICE), torch.bfloat16))
        assert error <= (case.tolerance or TOLERANCE[torch.bfloat16])


def test_a_launch_that_is_hardly_faster_does_not_replace_the_reasoned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = in_folder("w4a16", tmp_path, monkeypatch)
    bench = bench_that_prefers(subject, other_launch(subject), gain=1.02)
    assert tune([subject], bench, tmp_path, budget_s=600)
    measured = measured_in(subject, tmp_path)
    assert (measured.launch, measured.us) == (None, 1000.0)


@pytest.mark.parametrize("is_launched", [False, True])
def test_a_launch_that_fails_or_is_wrong_is_not_taken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_launched: bool,
) -> None:
    subject = in_folder("w4a16", tmp_path, monkeypatch)
    (case,) = subject.cases
    faster = other_launch(subject)

    def bind(*inputs: torch.Tensor) -> Callable[[], Any]:
        call: Callable[[], Any] = case.bind(*inputs)
        if subject.launches.choose(subject.shape, DEVICE) != faster:
            return call
        if not is_launched:
            raise RuntimeError("out of resource: shared memory")
        return lambda: torch.zeros_like(call())

    subject = replace(subject, cases=[replace(case, bind=bind)])
    assert tune([subject], bench_that_prefers(subject, faster), tmp_path, budget_s=600)
    assert measured_in(subject, tmp_path).launch is None
    assert "1 tried, 1 refused: as reasoned" in capsys.readouterr().out


def test_a_shape_whose_reasoned_launch_is_wrong_is_told_and_the_next_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = in_folder("w4a16", tmp_path, monkeypatch)
    other = w4a16_subject(40, 128, 100)
    (case,) = other.cases
    cases = [replace(case, reference=lambda x, *_: x.new_zeros(40, 100))]
    wrong = replace(other, launches=right.launches, cases=cases)
    assert not tune([wrong, right], bench_that_prefers(right, None), tmp_path, budget_s=600)
    told = capsys.readouterr().out
    assert "num_tokens=64 out_features=128 in_features=128: ArithmeticError: w4a16_linear" in told
    assert begun_table(right.launches, DEVICE, tmp_path).measured.keys() == {right.shape}


def test_a_run_goes_on_where_another_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = in_folder("scaled", tmp_path, monkeypatch)
    bench = bench_that_prefers(first, other_launch(first))
    assert tune([first], bench, tmp_path, budget_s=600)
    second = replace(
        scaled_subject(40, 96, 100, FP8), launches=first.launches, choices={"block_n": [64]}
    )
    assert not tune([first, second], bench, tmp_path, budget_s=0)
    assert begun_table(first.launches, DEVICE, tmp_path).measured.keys() == {first.shape}
    before = measured_in(first, tmp_path)
    assert tune([first, second], bench_that_prefers(first, None), tmp_path, budget_s=600)
    table = begun_table(first.launches, DEVICE, tmp_path)
    assert table.measured[first.shape] == before
    assert table.measured.keys() == {first.shape, second.shape}


def test_a_table_of_other_versions_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = in_folder("w4a16", tmp_path, monkeypatch)
    tune([subject], bench_that_prefers(subject, None), tmp_path, budget_s=600)
    monkeypatch.setattr(tables, "_versions", lambda: {"triton": "0.1"})
    assert begun_table(subject.launches, DEVICE, tmp_path).measured == {}


@pytest.mark.parametrize("subjects", [attention_subjects, product_subjects])
def test_every_shape_is_measured_once_and_has_something_to_try(
    subjects: Callable[[], Sequence[Subject[Any, Any]]],
) -> None:
    made = list(subjects())
    assert len({(each.launches.operation, each.shape) for each in made}) == len(made)
    for each in made:
        for architecture in ARCHITECTURES:
            reasoned = each.launches.reasoned(each.shape, architecture)
            assert each.launches.is_possible(each.shape, reasoned)
            assert next(each.candidates(reasoned))


def test_launches_most_like_the_reasoned_one_are_tried_first() -> None:
    subject = w4a16_subject(64, 4096, 4096)
    reasoned = reasoned_launch(subject)
    differences = [
        sum(a != b for a, b in zip(launch, reasoned, strict=True))
        for launch in subject.candidates(reasoned)
    ]
    assert differences == sorted(differences) and differences[0] == 1


def test_half_and_double_are_around() -> None:
    assert around(64) == [32, 64, 128]
    assert around(16) == [16, 32]
    assert around(8192, most=256) == [128, 256]
