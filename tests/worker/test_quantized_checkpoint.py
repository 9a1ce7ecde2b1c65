"""octavo.worker.quantized_checkpoint: what is stored in few bits is what it stands for."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from octavo.startup import StartupError
from octavo.worker.kv_cache import allocate_kv_cache
from octavo.worker.loading import open_model
from octavo.worker.models.decoder import Decoder
from octavo.worker.quantized_checkpoint import QuantizedCheckpoint
from octavo.worker.weights import load_weights, model_hash
from tests.worker.quantized_models import save_in_4_bits, save_in_fp8
from tests.worker.runners import BLOCK_SIZE, settings_for
from tests.worker.step_inputs import step_input
from tests.worker.tiny_models import logits_of, tiny_llama

TOKENS = torch.randint(0, 96, (20,), generator=torch.Generator().manual_seed(3)).tolist()
DOWN = "model.layers.1.mlp.down_proj"


def logits_on_cpu(path: Path) -> Tensor:
    config, checkpoint = open_model(settings_for(path))
    kv_cache = allocate_kv_cache(config, 64, BLOCK_SIZE, torch.float32)
    weights = load_weights(config, checkpoint, torch.float32)
    decoder = Decoder(config, weights, kv_cache.layers, 128)
    with torch.inference_mode():
        return decoder.forward(step_input([(TOKENS, 0, list(range(8)))], BLOCK_SIZE))


def assert_stands_for(path: Path, model: LlamaForCausalLM) -> None:
    torch.testing.assert_close(logits_on_cpu(path), logits_of(model, TOKENS), rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("group_size", [32, 64, -1])
@pytest.mark.parametrize("kind", ["awq", "gptq", "compressed-tensors"])
def test_a_cpu_computes_what_4_bits_stand_for(
    kind: Literal["awq", "gptq", "compressed-tensors"], group_size: int, tmp_path: Path
) -> None:
    assert_stands_for(tmp_path, save_in_4_bits(tmp_path, tiny_llama(), kind, group_size))


def test_inputs_of_a_group_need_not_be_neighbours(tmp_path: Path) -> None:
    model = save_in_4_bits(tmp_path, tiny_llama(), "gptq", 32, is_in_order=False)
    assert_stands_for(tmp_path, model)


def test_groups_may_be_told_in_64_bits(tmp_path: Path) -> None:
    model = save_in_4_bits(tmp_path, tiny_llama(), "gptq", 32, is_in_order=False)
    tensors = load_file(tmp_path / "model.safetensors").items()
    change(tmp_path, {name: each.long() for name, each in tensors if name.endswith("g_idx")})
    assert_stands_for(tmp_path, model)


@pytest.mark.parametrize("scales", ["matrix", "output", "block"])
def test_a_cpu_computes_what_fp8_stands_for(
    scales: Literal["matrix", "output", "block"], tmp_path: Path
) -> None:
    assert_stands_for(tmp_path, save_in_fp8(tmp_path, tiny_llama(), scales))


def change(path: Path, changes: dict[str, Tensor | None]) -> None:
    tensors = load_file(path / "model.safetensors") | changes
    save_file(
        {name: each for name, each in tensors.items() if each is not None},
        path / "model.safetensors",
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({f"{DOWN}.qzeros": None}, rf"tensor {DOWN}\.qzeros is missing, .* \(awq\)"),
        (
            {f"{DOWN}.scales": torch.ones(2, 64)},
            r"scales has the shape \(2, 64\) and the type F32; awq has \(3, 64\) and F16",
        ),
        ({f"{DOWN}.qweight": torch.ones(96, 8)}, r"qweight .* type F32; .* \(96, 8\) and I32"),
    ],
)
def test_a_tensor_that_is_missing_or_wrong_is_named(
    changes: dict[str, Tensor | None], told: str, tmp_path: Path
) -> None:
    save_in_4_bits(tmp_path, tiny_llama(), "awq", 32)
    change(tmp_path, changes)
    with pytest.raises(StartupError, match=told):
        open_model(settings_for(tmp_path))


def test_groups_that_no_kernel_knows_are_told_with_the_matrix(tmp_path: Path) -> None:
    save_in_4_bits(tmp_path, tiny_llama(), "gptq", 32)
    change(tmp_path, {f"{DOWN}.g_idx": torch.zeros(96, dtype=torch.int32)})
    _, checkpoint = open_model(settings_for(tmp_path))
    with pytest.raises(StartupError, match=f"{DOWN}.weight: g_idx does not say groups of 32"):
        checkpoint.read(f"{DOWN}.weight", torch.float32)


def test_tensors_that_are_read_as_a_matrix_are_not_told_to_be_unused(tmp_path: Path) -> None:
    save_in_4_bits(tmp_path, tiny_llama(), "gptq", 32)
    _, checkpoint = open_model(settings_for(tmp_path))
    assert isinstance(checkpoint, QuantizedCheckpoint)
    assert checkpoint.tensors.keys() == tiny_llama().state_dict().keys()
    assert checkpoint.tensors[f"{DOWN}.weight"].shape == (64, 96)


def test_kv_of_another_format_is_not_interchangeable(tmp_path: Path) -> None:
    save_in_4_bits(tmp_path, tiny_llama(), "gptq", 32)
    first = model_hash(*open_model(settings_for(tmp_path)), torch.float32)
    file = tmp_path / "config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq"
    file.write_text(json.dumps(config))
    assert model_hash(*open_model(settings_for(tmp_path)), torch.float32) != first
