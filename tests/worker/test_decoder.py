"""octavo.worker.models.decoder against transformers, and against itself in other batches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.kernels.cpu import library
from octavo.worker.kv_cache import allocate_kv_cache
from octavo.worker.loading import open_model
from octavo.worker.models.decoder import Decoder
from octavo.worker.weights import load_weights
from tests.worker.runners import BLOCK_SIZE, settings_for
from tests.worker.step_inputs import step_input
from tests.worker.tiny_models import LLAMA3_ROPE, in_bfloat16, logits_of, save_tiny_llama

VARIANTS: dict[str, dict[str, Any]] = {
    "every head its own keys": {"num_key_value_heads": 4},
    "three heads share keys": {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 16},
    "four heads share keys": {"num_key_value_heads": 1},
    "head output tied to the embedding": {"tie_word_embeddings": True},
    "heads wider than hidden / heads": {"head_dim": 32},
    "llama3 rope": {"rope_parameters": LLAMA3_ROPE},
    "linear rope": {
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    },
    "odd sizes": {"hidden_size": 60, "intermediate_size": 101, "vocab_size": 101, "head_dim": 10},
}
# Nine heads need a hidden size that they divide, for transformers' sake.
VARIANTS["three heads share keys"]["hidden_size"] = 72

TOKENS = torch.randint(0, 96, (53,), generator=torch.Generator().manual_seed(1)).tolist()


def load(path: Path, dtype: torch.dtype) -> Decoder:
    config, checkpoint = open_model(settings_for(path))
    kv_cache = allocate_kv_cache(config, 64, BLOCK_SIZE, dtype)
    return Decoder(config, load_weights(config, checkpoint, dtype), kv_cache.layers, 128)


@pytest.fixture(params=["C++ kernels", "references"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute with the kernels built here, and as where there is no compiler."""
    if request.param == "references":
        monkeypatch.setattr(library, "load", lambda: None)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_float32_logits_are_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path, **changes)
    decoder = load(tmp_path, torch.float32)
    blocks = list(range(20, 6, -1))
    with torch.inference_mode():
        logits = decoder.forward(step_input([(TOKENS, 0, blocks)], BLOCK_SIZE))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, logits_of(model, TOKENS), rtol=1e-4, atol=2e-4)


@pytest.mark.usefixtures("kernels")
def test_bfloat16_logits_err_no_more_than_transformers_bfloat16(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path)
    expected = logits_of(model, TOKENS)
    their_error = (logits_of(in_bfloat16(model), TOKENS) - expected).abs().mean()
    decoder = load(tmp_path, torch.bfloat16)
    with torch.inference_mode():
        logits = decoder.forward(step_input([(TOKENS, 0, list(range(14)))], BLOCK_SIZE))
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().mean() <= 1.2 * their_error


needs_kernels = pytest.mark.skipif(
    library.load_for(torch.float32) is None,
    reason="the references round differently in other batches; only the C++ kernels promise this",
)


@needs_kernels
def test_float32_logits_are_the_same_bits_in_chunks_and_in_company(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, num_key_value_heads=1)
    decoder = load(tmp_path, torch.float32)
    mine, others = list(range(14)), list(range(20, 34))
    with torch.inference_mode():
        whole = decoder.forward(step_input([(TOKENS, 0, mine)], BLOCK_SIZE))
        parts = [
            decoder.forward(step_input([(TOKENS[:end], start, others)], BLOCK_SIZE))
            for start, end in ((0, 1), (1, 18), (18, 50), (50, 53))
        ]
        company = decoder.forward(
            step_input(
                [(TOKENS[::-1], 7, others), (TOKENS, 20, mine), (TOKENS[:9], 8, others)], BLOCK_SIZE
            )
        )
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(company[46 : 46 + 33], whole[20:])


def test_no_logits_are_computed_where_none_are_wanted(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    decoder = load(tmp_path, torch.float32)
    inputs = step_input([(TOKENS, 0, list(range(14)))], BLOCK_SIZE)
    silent = replace(inputs, logits_indices=torch.empty(0, dtype=torch.int64))
    with torch.inference_mode():
        assert decoder.forward(silent).shape == (0, 96)


def test_logits_of_all_tokens_need_no_indices(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    decoder = load(tmp_path, torch.float32)
    inputs = step_input([(TOKENS, 0, list(range(14)))], BLOCK_SIZE)
    with torch.inference_mode():
        expected = decoder.forward(inputs)
        assert torch.equal(decoder.forward(replace(inputs, logits_indices=None)), expected)
