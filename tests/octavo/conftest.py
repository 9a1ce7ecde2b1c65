"""A tiny model for the offline API, with random weights and a real tokenizer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tokenizers

from octavo import LLM
from tests.router.tiny_tokenizers import byte_level_tokenizer, write_directory
from tests.worker.tiny_models import save_tiny_llama


@pytest.fixture(scope="package")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_tiny_llama(path, vocab_size=420, eos_token_id=2)
    write_directory(path, byte_level_tokenizer())
    return path


@pytest.fixture(scope="package")
def tokenizer(path: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))


@pytest.fixture(scope="package")
def llm(path: Path) -> Iterator[LLM]:
    llm = LLM(str(path), dtype="float32", kv_cache_memory_bytes=1 << 20, max_num_seqs=8)
    yield llm
    llm.close()
