"""octavo.worker.kv_cache: how much memory it takes, and when."""

from pathlib import Path

import psutil
import pytest
import torch

from octavo.gguf_file import GGUFFile
from octavo.worker import kv_cache, memory
from octavo.worker.models.config import ModelConfig
from tests.worker.tiny_models import tiny_llama, write_gguf


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_gguf(path, tiny_llama())
    return ModelConfig.from_gguf(GGUFFile.open(path))


@pytest.mark.parametrize(
    ("dtype", "numbers_per_token"),
    # Of int8 with a scale, as large as four numbers.
    [(torch.float32, 16), (torch.bfloat16, 16), (torch.int8, 16 + 4)],
    ids=str,
)
def test_cache_holds_keys_and_values_of_every_layer(
    config: ModelConfig, dtype: torch.dtype, numbers_per_token: int
) -> None:
    cache = kv_cache.allocate_kv_cache(config, 10, 16, dtype)
    assert cache.tensor.shape == (2, 10, 2, 2, 16 * numbers_per_token)
    assert cache.tensor.dtype == dtype
    assert not cache.tensor.any()
    assert [pages.tensor.data_ptr() for pages in cache.layers] == [
        layer.data_ptr() for layer in cache.tensor
    ]
    assert cache.tensor.data_ptr() % 4096 == 0
    assert cache.nbytes == 10 * kv_cache.block_bytes(config, 16, dtype)


def test_memory_is_taken_when_it_is_written(config: ModelConfig) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    cache = kv_cache.allocate_kv_cache(config, 1 << 16, 16, torch.float32)
    assert cache.nbytes == 512 << 20
    assert process.memory_info().rss - before < 100 << 20


def test_default_is_a_quarter_of_what_the_weights_leave_and_4_gib_at_most(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    total = psutil.virtual_memory().total
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert kv_cache.default_kv_cache_bytes(total - (1 << 30)) == 256 << 20
    assert kv_cache.default_kv_cache_bytes(total + 1) == 0
    assert kv_cache.default_kv_cache_bytes(-(1 << 40)) == 4 << 30
    limit.write_text("max\n")
    assert kv_cache.default_kv_cache_bytes(total - (1 << 30)) == 256 << 20
    # A container's limit counts where it is tighter.
    limit.write_text(f"{3 << 20}\n")
    assert kv_cache.default_kv_cache_bytes(1 << 20) == 512 << 10
