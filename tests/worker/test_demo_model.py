"""The demo model against transformers: exact in float32, no worse in bfloat16."""

import argparse
import csv
import decimal
import difflib
import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from octavo.startup import StartupReport
from octavo.worker.kv_cache import allocate_kv_cache
from octavo.worker.loading import load_model_runner, open_model
from octavo.worker.models.decoder import Decoder
from octavo.worker.settings import Quantization, WorkerSettings
from octavo.worker.weights import load_weights
from tests.worker.plan_driver import PlanDriver
from tests.worker.step_inputs import step_input
from tests.worker.tiny_models import in_bfloat16, logits_of

pytestmark = pytest.mark.slow

BLOCK_SIZE = 16
NUM_TOKENS = 1024


@dataclass(frozen=True)
class Demo:
    path: Path
    model: LlamaForCausalLM
    """transformers', in float32."""
    text: list[int]
    """Documentation of Python's library."""
    logits: torch.Tensor
    """transformers' after each token of the text."""


@pytest.fixture(scope="module")
def demo(demo_model: Path, demo_in_transformers: Path) -> Demo:
    tokenizer = AutoTokenizer.from_pretrained(demo_in_transformers)
    model = AutoModelForCausalLM.from_pretrained(demo_in_transformers, dtype=torch.float32).eval()
    modules = (argparse, csv, decimal, difflib, statistics)
    text = "\n".join(str(module.__doc__) for module in modules)
    tokens = tokenizer.encode(text)[:NUM_TOKENS]
    assert len(tokens) == NUM_TOKENS
    return Demo(demo_model, model, tokens, logits_of(model, tokens))


def settings(path: Path) -> WorkerSettings:
    return WorkerSettings(
        model=str(path),
        scheduler_endpoint="ipc:///nowhere",
        dtype="float32",
        num_gpu_blocks_override=128,
    )


def our_logits(
    demo: Demo,
    dtype: torch.dtype,
    quantization: Quantization | None = None,
    cache_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Return the decoder's logits after each token of the text, computed in two chunks."""
    config, checkpoint = open_model(settings(demo.path))
    kv_cache = allocate_kv_cache(config, 128, BLOCK_SIZE, cache_dtype or dtype)
    weights = load_weights(config, checkpoint, dtype, quantization)
    decoder = Decoder(config, weights, kv_cache.layers, NUM_TOKENS)
    blocks = list(range(100, 100 - NUM_TOKENS // BLOCK_SIZE, -1))
    middle = 700
    with torch.inference_mode():
        chunks = [
            decoder.forward(step_input([(demo.text[:middle], 0, blocks)], BLOCK_SIZE)),
            decoder.forward(step_input([(demo.text, middle, blocks)], BLOCK_SIZE)),
        ]
    return torch.cat(chunks)


def logprobs_of_text(logits: torch.Tensor, text: list[int]) -> torch.Tensor:
    """Return the log-probability of each token of the text after those before it."""
    following = torch.tensor(text[1:])[:, None]
    return logits[:-1].log_softmax(dim=-1).gather(1, following)[:, 0]


def test_float32_logits_are_transformers(demo: Demo) -> None:
    torch.testing.assert_close(our_logits(demo, torch.float32), demo.logits, rtol=1e-3, atol=2e-3)


def test_bfloat16_logprobs_err_no_more_than_transformers_bfloat16(demo: Demo) -> None:
    exact = logprobs_of_text(demo.logits, demo.text)
    theirs = logits_of(in_bfloat16(demo.model), demo.text)
    their_error = (logprobs_of_text(theirs, demo.text) - exact).abs().mean()
    ours = our_logits(demo, torch.bfloat16)
    our_error = (logprobs_of_text(ours, demo.text) - exact).abs().mean()
    assert our_error <= 1.2 * their_error


@pytest.mark.parametrize(("quantization", "largest_rise"), [("int8", 0.02), ("gguf", 0.01)])
def test_quantized_weights_cost_little_perplexity(
    demo: Demo, quantization: Quantization, largest_rise: float
) -> None:
    exact = logprobs_of_text(demo.logits, demo.text).mean()
    ours = logprobs_of_text(our_logits(demo, torch.bfloat16, quantization), demo.text).mean()
    assert (exact - ours).exp() - 1 <= largest_rise


def test_an_int8_cache_costs_little_perplexity(demo: Demo) -> None:
    exact = logprobs_of_text(demo.logits, demo.text).mean()
    ours = our_logits(demo, torch.bfloat16, cache_dtype=torch.int8)
    assert (exact - logprobs_of_text(ours, demo.text).mean()).exp() - 1 <= 0.01


def test_greedy_tokens_are_transformers(demo: Demo) -> None:
    driver = PlanDriver(load_model_runner(settings(demo.path), StartupReport(None)), BLOCK_SIZE)
    prompt = demo.text[:50]
    generated = demo.model.generate(
        torch.tensor([prompt]), do_sample=False, min_new_tokens=32, max_new_tokens=32
    )
    assert driver.generate(0, prompt, 32, 24) == generated[0, 50:].tolist()
