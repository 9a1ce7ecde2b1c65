"""Models with quantized weights on the device: they compute what those weights stand for."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from octavo.startup import StartupReport
from octavo.v1.common_pb2 import SamplingParams
from octavo.v1.scheduling_pb2 import SubmitRequest
from octavo.worker.device_runner import DeviceRunner
from octavo.worker.loading import describe_worker, load_model_runner
from octavo.worker.settings import Dtype, Quantization, WorkerSettings
from tests.worker.offline_engine import OfflineEngine
from tests.worker.quantized_models import in_8_bits
from tests.worker.tiny_models import logits_of, save_tiny_llama

Saved = tuple[Path, LlamaForCausalLM]

KEY = bytes(16)
PROMPT = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(5)).tolist()
NUM_OUTPUTS = 6


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A tiny model as a directory and as transformers has it."""
    path = tmp_path_factory.mktemp("tiny")
    return path, save_tiny_llama(path)


def settings_for(
    path: Path, quantization: Quantization | None = None, dtype: Dtype = "float32"
) -> WorkerSettings:
    return WorkerSettings(
        model=str(path),
        scheduler_endpoint="",
        dtype=dtype,
        quantization=quantization,
        num_gpu_blocks_override=32,
        max_num_seqs=4,
    )


def loaded(settings: WorkerSettings) -> DeviceRunner:
    runner = load_model_runner(settings, StartupReport(None))
    assert isinstance(runner, DeviceRunner)
    return runner


def told_by(runner: DeviceRunner) -> tuple[list[int], Tensor]:
    """Return prompt and greedy tokens, and the log-probabilities told of all but the first."""
    request = SubmitRequest(
        request_key=KEY,
        prompt_token_ids=PROMPT,
        n=1,
        seeds=[0],
        sampling=SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=1.0),
        max_tokens=NUM_OUTPUTS,
        num_logprobs=0,
        num_prompt_logprobs=0,
    )
    engine = OfflineEngine(runner)
    tokens = PROMPT + engine.generate([request])[KEY, 0]
    told = engine.prompt_logprobs[KEY] + engine.logprobs[KEY, 0]
    return tokens, torch.tensor([each.chosen.logprob for each in told])


def logprobs_of(model: LlamaForCausalLM, tokens: list[int]) -> Tensor:
    """Return the log-probability of each token after those before it, [len(tokens) - 1]."""
    logprobs = logits_of(model, tokens)[:-1].log_softmax(dim=-1)
    return logprobs.gather(1, torch.tensor(tokens[1:])[:, None]).squeeze(1)


def assert_computes(told: Tensor, expected: Tensor, original: Tensor) -> None:
    """Compare with the quantized model in plain PyTorch.

    Numbers that lie between two of few bits may be rounded to either, so that single ones differ;
    on average the two are far closer than the model before it was quantized.
    """
    assert (told - expected).abs().mean() < 0.05 * (told - original).abs().mean()


@pytest.mark.parametrize("quantization", ["fp8", "int8"])
def test_weights_become_8_bits_as_they_are_read(saved: Saved, quantization: Quantization) -> None:
    path, model = saved
    dtype = torch.int8 if quantization == "int8" else torch.float8_e4m3fn
    settings = settings_for(path, quantization)
    runner = loaded(settings)
    tokens, told = told_by(runner)
    assert_computes(told, logprobs_of(in_8_bits(model, dtype), tokens), logprobs_of(model, tokens))
    # A byte for each weight of a linear layer, a scale for each of its outputs.
    matrices = [each for each in model.model.layers.parameters() if each.dim() == 2]
    expected = sum(each.numel() + 4 * len(each) for each in matrices)
    others = sum(each.numel() for each in model.parameters()) - sum(e.numel() for e in matrices)
    assert runner.describe().memory.weights_bytes == expected + 4 * others
    assert describe_worker(settings)[1].memory.weights_bytes == expected + 4 * others
