"""octavo.worker.plan: what is planned is what a worker then takes."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from octavo.kernels.threads import set_num_threads
from octavo.startup import StartupReport
from octavo.v1.step_pb2 import KVGroup, WorkerReady
from octavo.worker import plan
from octavo.worker.capacity import requests_at_once
from octavo.worker.loading import describe_worker, load_model_runner
from octavo.worker.plan import PlanSettings
from tests.worker.runners import settings_for
from tests.worker.tiny_models import save_tiny_llama, tiny_llama


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_tiny_llama(tmp_path)
    return tmp_path


@pytest.mark.parametrize("cpu_threads", [None, 1, 3])
def test_the_plan_is_what_the_worker_becomes(
    saved: Path, same_threads_afterwards: None, cpu_threads: int | None
) -> None:
    settings = dataclasses.replace(settings_for(saved), cpu_threads=cpu_threads)
    # What was before it, in this process, is nothing to it.
    set_num_threads(2)
    planned = describe_worker(dataclasses.replace(settings, load_format="dummy"))[1]
    loaded = load_model_runner(settings, StartupReport(None)).describe()
    loaded.ClearField("model_hash")
    loaded.ClearField("model_path")
    assert planned == loaded


def test_a_config_is_enough_and_the_weights_are_those_of_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.device("meta"):
        model = tiny_llama(vocab_size=50_000, hidden_size=1024)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(tmp_path)
    settings = PlanSettings(dtype="float32", num_gpu_blocks_override=8, max_num_seqs=3)
    assert plan.main(str(tmp_path), settings=settings) == 0
    shown = capsys.readouterr().out
    assert f"weights      {model.num_parameters() * 4 / 1e9:8.3f} GB" in shown
    assert "8 blocks of 16 tokens: 128 tokens" in shown


def test_a_context_that_does_not_fit_is_lowered_with_a_note(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main(str(saved), settings=PlanSettings(num_gpu_blocks_override=8)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "context 128 tokens" in shown
    assert "trained for 256 tokens; the context is lowered to the 128 that" in shown


def test_a_context_that_fits_has_no_note(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(str(saved), settings=PlanSettings(num_gpu_blocks_override=16)) == 0
    assert "Note" not in capsys.readouterr().out


def test_a_length_that_was_asked_for_and_does_not_fit_is_refused(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = PlanSettings(num_gpu_blocks_override=8, max_model_len=200)
    assert plan.main(str(saved), settings=settings) == 1
    shown = capsys.readouterr()
    assert "--max-model-len 200 does not fit" in shown.err and shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_cache_larger_than_all_memory_is_refused(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main(str(saved), settings=PlanSettings(num_gpu_blocks_override=1 << 45)) == 1
    assert "no memory for a KV cache" in capsys.readouterr().err


def test_programs_get_the_parts_and_their_sum(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main(str(saved), settings=PlanSettings(num_gpu_blocks_override=8, json=True)) == 0
    planned = json.loads(capsys.readouterr().out)
    parts = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "program_bytes")
    assert planned["total_bytes"] == sum(planned[part] for part in parts)
    assert planned["fits"] == [{"tokens": 128, "requests": 1}]
    assert len(planned["notes"]) == 1


def test_more_than_is_available_has_a_note(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "free_bytes", lambda _: 1 << 20)
    assert plan.main(str(saved), settings=PlanSettings(num_gpu_blocks_override=16)) == 0
    assert "more than is available" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("length", "fit"),
    # 100 blocks of 16 tokens, 30 rows.
    [(1, 30), (48, 30), (49, 25), (160, 10), (161, 9), (1600, 1), (1601, 0)],
)
def test_requests_fit_by_whole_blocks_and_rows(length: int, fit: int) -> None:
    worker = WorkerReady(block_size=16, num_rows=30, kv_groups=[KVGroup(num_blocks=100)])
    assert requests_at_once(worker, length) == fit
