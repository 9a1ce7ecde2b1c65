"""octavo.bench_offline: both commands, on a tiny model."""

import functools
import json
from pathlib import Path

import pytest

from octavo import LLM, bench_offline
from octavo.bench_offline import LatencySettings, ThroughputSettings
from tests.router.tiny_tokenizers import byte_level_tokenizer, write_directory
from tests.worker.tiny_models import save_tiny_llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    # Fewer tokens than random prompts are usually drawn from.
    save_tiny_llama(path, vocab_size=300)
    write_directory(path, byte_level_tokenizer())
    return str(path)


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own accord it would take gigabytes, and that is a million blocks of such a model."""
    small = functools.partial(LLM, device="cpu", kv_cache_memory_bytes=1 << 20)
    monkeypatch.setattr(bench_offline, "LLM", small)


def test_throughput_counts_the_tokens_that_were_asked_for(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    settings = ThroughputSettings(
        model=model, num_prompts=3, input_len=5, output_len=4, output_json=path, dtype="float32"
    )
    assert bench_offline.throughput(settings=settings) == 0
    results = json.loads(path.read_text())
    assert (results["input_tokens"], results["output_tokens"]) == (15, 12)
    ratio = results["total_tokens_per_second"] / results["output_tokens_per_second"]
    assert ratio == pytest.approx(27 / 12, rel=0.01)
    assert "output_tokens_per_second" in capsys.readouterr().out
    parts = {name: each for name, each in results.items() if name.startswith("time_")}
    # Waiting is within the others.
    waiting = parts.pop("time_waiting")
    assert waiting["seconds"] <= results["duration_s"]
    assert sum(each["percent"] for each in parts.values()) == pytest.approx(100, abs=0.5)
    assert all(each["seconds"] >= 0 for each in parts.values())


def test_latency_measures_whole_batches(model: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    settings = LatencySettings(
        model=model,
        batch_size=2,
        num_iters=3,
        input_len=5,
        output_len=4,
        output_json=path,
        dtype="float32",
    )
    assert bench_offline.latency(settings=settings) == 0
    results = json.loads(path.read_text())
    # Three batches of two outputs of four tokens, in three times the mean latency.
    seconds = 3 * results["latency_ms"]["mean"] / 1e3
    assert results["output_tokens_per_second"] == pytest.approx(24 / seconds, rel=0.01)


def test_no_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ThroughputSettings(model=str(tmp_path / "none"))
    assert bench_offline.throughput(settings=settings) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("octavo: there is no model at") and shown.count("\n") == 1


def test_weights_are_quantized_as_asked_for(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    # What a CPU cannot do it refuses by name.
    assert bench_offline.throughput(settings=ThroughputSettings(model=model, quantization="fp8"))
    assert "--quantization fp8" in capsys.readouterr().err
