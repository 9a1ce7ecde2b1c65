"""Models with quantized weights on the device: they compute what those weights stand for."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from octavo.kernels.device_layers import DeviceLayerWeights
from octavo.kernels.int4_weight import Int4Weight
from octavo.startup import StartupError, StartupReport
from octavo.v1.common_pb2 import SamplingParams
from octavo.v1.scheduling_pb2 import SubmitRequest
from octavo.worker.device_runner import DeviceRunner
from octavo.worker.loading import describe_worker, load_model_runner, open_model
from octavo.worker.settings import Dtype, LoadFormat, Quantization, WorkerSettings
from octavo.worker.weights import load_weights, weights_bytes
from tests.worker.offline_engine import OfflineEngine
from tests.worker.quantized_models import (
    in_8_bits,
    linear_layers,
    rounded,
    save_in_4_bits,
    save_in_fp8,
    with_linear_layers,
)
from tests.worker.tiny_models import logits_of, save_tiny_llama, tiny_llama

Saved = tuple[Path, LlamaForCausalLM]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KEY = bytes(16)
PROMPT = torch.randint(0, 96, (30,), generator=torch.Generator().manual_seed(5)).tolist()
NUM_OUTPUTS = 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A tiny model as a directory and as transformers has it."""
    path = tmp_path_factory.mktemp("tiny")
    return path, save_tiny_llama(path, num_hidden_layers=1)


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


@pytest.mark.parametrize(
    ("kind", "group_size"), [("awq", 32), ("gptq", 64), ("compressed-tensors", -1)]
)
def test_weights_stay_in_the_4_bits_of_the_checkpoint(
    kind: Literal["awq", "gptq", "compressed-tensors"], group_size: int, tmp_path: Path
) -> None:
    model = tiny_llama(num_hidden_layers=1)
    stored = save_in_4_bits(tmp_path, model, kind, group_size)
    runner = loaded(settings_for(tmp_path, dtype="float16"))
    tokens, told = told_by(runner)
    assert_computes(told, logprobs_of(stored, tokens), logprobs_of(model, tokens))
    layer = runner._forward._decoder._weights.layers[0]
    assert isinstance(layer, DeviceLayerWeights)
    for weight in (layer.qkv_proj, layer.o_proj, layer.gate_up_proj, layer.down_proj):
        assert isinstance(weight.matrix, Int4Weight)


def test_inputs_of_a_group_need_not_be_neighbours(tmp_path: Path) -> None:
    model = tiny_llama(num_hidden_layers=1)
    stored = save_in_4_bits(tmp_path, model, "gptq", 32, is_in_order=False)
    tokens, told = told_by(loaded(settings_for(tmp_path, dtype="float16")))
    assert_computes(told, logprobs_of(stored, tokens), logprobs_of(model, tokens))


@pytest.mark.parametrize("scales", ["matrix", "output"])
def test_weights_stay_in_the_fp8_of_the_checkpoint(
    scales: Literal["matrix", "output"], tmp_path: Path
) -> None:
    model = tiny_llama(num_hidden_layers=1)
    stored = save_in_fp8(tmp_path, model, scales)
    tokens, told = told_by(loaded(settings_for(tmp_path)))
    expected = with_linear_layers(
        stored, lambda weight: weight, lambda rows: rounded(rows, torch.float8_e4m3fn)
    )
    assert_computes(told, logprobs_of(expected, tokens), logprobs_of(model, tokens))


def test_scales_of_blocks_are_for_a_flag(tmp_path: Path) -> None:
    save_in_fp8(tmp_path, tiny_llama(), "block")
    describe_worker(settings_for(tmp_path, "fp8"))
    with pytest.raises(StartupError, match="scales of blocks, .* Give --quantization fp8 or int8"):
        describe_worker(settings_for(tmp_path))


@pytest.mark.parametrize("load_format", ["safetensors", "dummy"])
def test_what_4_bits_take_is_known_beforehand(load_format: LoadFormat, tmp_path: Path) -> None:
    model = tiny_llama()
    save_in_4_bits(tmp_path, model, "awq", 32)
    settings = replace(settings_for(tmp_path, dtype="float16"), load_format=load_format)
    config, checkpoint = open_model(settings)
    stored = (config, checkpoint, torch.float16, None, DEVICE)
    weights = load_weights(*stored)
    matrices = [
        weight.matrix
        for layer in weights.layers
        if isinstance(layer, DeviceLayerWeights)
        for weight in (layer.qkv_proj, layer.o_proj, layer.gate_up_proj, layer.down_proj)
        if isinstance(weight.matrix, Int4Weight)
    ]
    assert len(matrices) == 4 * config.num_layers
    num_bytes = sum(each.words.nbytes + each.scales_and_zeros.nbytes for each in matrices)
    names = {f"{name}.weight" for name, _ in linear_layers(model)}
    others = [each for name, each in model.named_parameters() if name not in names]
    assert weights_bytes(*stored) == num_bytes + 2 * sum(each.numel() for each in others)


def test_4_bits_are_not_multiplied_by_float32(tmp_path: Path) -> None:
    save_in_4_bits(tmp_path, tiny_llama(), "awq", 32)
    with pytest.raises(StartupError, match="weights of 4 bits, .* not by --dtype float32"):
        describe_worker(settings_for(tmp_path))


def test_inputs_in_different_orders_cannot_be_one_layer(tmp_path: Path) -> None:
    save_in_4_bits(tmp_path, tiny_llama(), "gptq", 32, is_in_order=False)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.0.self_attn.k_proj.g_idx"
    save_file(tensors | {name: tensors[name].flip(0)}, file)
    with pytest.raises(StartupError, match=r"q_proj.* and .*k_proj.*different orders"):
        loaded(settings_for(tmp_path, dtype="float16"))
