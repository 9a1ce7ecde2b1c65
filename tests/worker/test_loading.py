"""octavo.worker.loading: what the scheduler is told, and what an operator can mend."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.kernels.threads import num_threads
from octavo.startup import StartupError, StartupReport
from octavo.worker import capacity, loading, model_runner
from octavo.worker.device_runner import DeviceRunner
from octavo.worker.dummy_plans import num_dummy_blocks
from octavo.worker.loading import load_model_runner
from octavo.worker.settings import WorkerSettings
from octavo.worker.weights import load_weights
from tests.worker.runners import settings_for
from tests.worker.simulated_memory import SimulatedMemory
from tests.worker.tiny_models import save_tiny_llama, tiny_llama, write_gguf


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save_tiny_llama(path)
    return path


def load(settings: WorkerSettings, **changes: Any) -> Any:
    changed = dataclasses.replace(settings, **changes)
    return load_model_runner(changed, StartupReport(None)).describe()


def test_ready_tells_what_was_loaded_and_what_it_takes(saved: Path) -> None:
    ready = load(settings_for(saved), num_gpu_blocks_override=100, max_num_batched_tokens=64)
    assert ready.dtype == "float32"
    assert len(ready.model_hash) == 16
    assert (ready.block_size, ready.num_rows, ready.vocab_size) == (4, 16, 96)
    assert ready.max_model_len == 256
    assert ready.max_num_batched_tokens == 64
    assert list(ready.eos_token_ids) == [2]
    assert ready.model_path == str(saved)
    assert ready.device.startswith("cpu (")
    (group,) = ready.kv_groups
    assert (group.num_blocks, list(group.layers), group.sliding_window) == (100, [0, 1], 0)
    # Keys and values, 2 layers, 100 blocks as long as a vector, 2 heads of 16 numbers.
    assert ready.memory.kv_cache_bytes == 2 * 2 * 100 * 16 * 2 * 16 * 4
    num_weights = sum(parameter.numel() for parameter in tiny_llama().parameters())
    assert ready.memory.weights_bytes == 4 * num_weights


def test_context_is_what_fits_unless_asked_for(saved: Path) -> None:
    assert load(settings_for(saved), num_gpu_blocks_override=10).max_model_len == 40
    assert load(settings_for(saved), max_model_len=100).max_model_len == 100


def test_the_smallest_limits_still_start(saved: Path) -> None:
    changes = {"max_model_len": 1, "max_num_batched_tokens": 1, "max_num_seqs": 1, "block_size": 1}
    ready = load(settings_for(saved), num_gpu_blocks_override=1, **changes)
    assert (ready.max_model_len, ready.num_rows, ready.kv_groups[0].num_blocks) == (1, 1, 1)


def test_number_of_blocks_follows_from_the_memory_given(saved: Path) -> None:
    # Keys and values, two layers of two heads; blocks are as long as a vector at least.
    block_bytes = 2 * 2 * 2 * 16 * 16 * 4
    changes = {"num_gpu_blocks_override": None, "kv_cache_memory_bytes": 33 * block_bytes + 5}
    assert load(settings_for(saved), **changes).kv_groups[0].num_blocks == 33


def test_stages_are_reported(saved: Path, tmp_path: Path) -> None:
    with (tmp_path / "stages").open("wb") as file:
        load_model_runner(settings_for(saved), StartupReport(file.fileno()))
    lines = [json.loads(line) for line in (tmp_path / "stages").read_text().splitlines()]
    stages = [line["stage"] for line in lines]
    assert [stage.split()[0] for stage in stages] == ["config:", "weights", "KV", "warm-up"]
    assert "context of 256 tokens" in stages[0]
    assert "float32" in stages[1]
    assert "256 blocks of 4 tokens: 1,024 tokens = 4 requests of 256" in stages[2]


def test_a_block_is_copied_before_a_request_wants_one_copied(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[tuple[torch.Tensor, ...]] = []
    monkeypatch.setattr(model_runner, "copy_blocks", lambda _, *ids: copied.append(ids))
    load(settings_for(saved), block_size=16)
    assert copied == [(torch.tensor([0]), torch.tensor([1]))]


def test_the_cache_of_a_device_is_what_a_trial_leaves_of_the_share(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SimulatedMemory(total=8 << 20, others=1 << 20)

    def load_onto_device(*arguments: Any) -> Any:
        memory.allocate(4 << 20)
        return load_weights(*arguments)

    monkeypatch.setattr(loading, "load_weights", load_onto_device)
    monkeypatch.setattr(loading, "memory_of", lambda _: memory)
    for module in (capacity, loading):
        monkeypatch.setattr(module, "runs_beside_cpu", lambda _: True)
    changes: dict[str, Any] = {
        "num_gpu_blocks_override": None,
        "gpu_memory_utilization": 0.75,
    }
    with (tmp_path / "stages").open("wb") as file:
        settings = dataclasses.replace(settings_for(saved), **changes)
        runner = load_model_runner(settings, StartupReport(file.fileno()))
    assert isinstance(runner, DeviceRunner)
    # What the trial took for a cache is none of the weights'.
    trial_bytes = num_dummy_blocks(runner._rows.limits, 16, 512) * runner.kv_cache_bytes
    trial_bytes //= runner.describe().kv_groups[0].num_blocks
    left = (6 << 20) - ((4 << 20) - trial_bytes)
    assert left - 2 * 8192 < runner.kv_cache_bytes <= left
    (line,) = [line for line in (tmp_path / "stages").read_text().splitlines() if "memory" in line]
    assert "memory 0.01 GB: others 0.00, kernels 0.00, weights 0.00" in line


def test_a_context_that_is_lowered_is_told_unless_it_was_asked_for(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(settings_for(saved, num_blocks=10), max_model_len=40)
    load(settings_for(saved))
    assert caplog.messages == []
    load(settings_for(saved, num_blocks=10))
    (message,) = caplog.messages
    assert "trained for 256 tokens; the context is lowered to the 40 that" in message


def test_memory_that_will_run_out_is_told(
    saved: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "free_bytes", lambda _: 1 << 10)
    load(settings_for(saved))
    (message,) = caplog.messages
    assert "0.0 GB are available. Lower --kv-cache-memory-bytes" in message


def test_weights_that_find_no_memory_are_told_with_their_size(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*stored: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loading, "load_weights", refuse)
    with pytest.raises(StartupError, match=r"no memory for the weights: they take 0\.\d\d GB"):
        load(settings_for(saved))


def test_threads_are_set(saved: Path, same_threads_afterwards: None) -> None:
    load(settings_for(saved), cpu_threads=3)
    assert num_threads() == 3
    # Nothing of a step is left to torch that would be worth more.
    assert torch.get_num_threads() == 1
    load(settings_for(saved))
    assert num_threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "/nowhere/llama"}, "/nowhere/llama: no such model. Give a directory or"),
        ({"model": __file__}, "not a model. Give a directory or a .gguf file"),
        ({"load_format": "gguf"}, "is a directory, which --load-format gguf does not read"),
        ({"block_size": 0}, "--block-size is 0; give at least 1"),
        ({"cpu_threads": -2}, "--cpu-threads is -2; give at least 1"),
        ({"max_model_len": 300}, "--max-model-len 300 is more than the 256 tokens the model was"),
        (
            {"max_model_len": 50, "num_gpu_blocks_override": 10},
            "--max-model-len 50 does not fit: the KV cache has 10 blocks of 4 tokens",
        ),
        (
            {"num_gpu_blocks_override": None, "kv_cache_memory_bytes": 1000},
            "a KV cache of 1,000 bytes holds no block of 8,192 bytes",
        ),
        ({"num_gpu_blocks_override": 1 << 45}, "no memory for a KV cache of .* blocks: .* Lower"),
    ],
)
def test_what_an_operator_can_mend_is_said(
    saved: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StartupError, match=message):
        load(settings_for(saved), **changes)


def test_a_gguf_file_cut_in_half_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StartupError, match=r"tiny.gguf: not a whole GGUF file.*Download it again"):
        load(settings_for(path))


@pytest.mark.parametrize("content", [None, "{", "[]"], ids=["missing", "cut", "no object"])
def test_a_config_that_cannot_be_read_is_named(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(StartupError, match="config.json: (cannot be read|not a JSON object)"):
        load(settings_for(tmp_path))
