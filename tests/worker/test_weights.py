"""octavo.worker.weights and the checkpoints: what is read, what is missing, what is the same."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from octavo.startup import StartupError
from octavo.worker.checkpoint import Checkpoint
from octavo.worker.loading import open_model
from octavo.worker.models.config import ModelConfig
from octavo.worker.settings import LoadFormat, WorkerSettings
from octavo.worker.weights import expected_tensors, load_weights, model_hash
from tests.worker.tiny_models import save_tiny_llama, tiny_llama, write_gguf

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def open_path(
    path: Path, load_format: LoadFormat = "auto", seed: int = 0
) -> tuple[ModelConfig, Checkpoint]:
    settings = WorkerSettings(
        model=str(path), scheduler_endpoint="ipc:///x", load_format=load_format, seed=seed
    )
    return open_model(settings)


def change_tensors(path: Path, changes: dict[str, torch.Tensor | None]) -> None:
    """Rewrite model.safetensors with some tensors replaced or (None) left out."""
    tensors: dict[str, Any] = load_file(path / FILE) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path / FILE)


def split_into_shards(path: Path) -> None:
    """Rewrite model.safetensors as two shards and their index."""
    tensors = list(load_file(path / FILE).items())
    shards = {"a.safetensors": dict(tensors[:9]), "b.safetensors": dict(tensors[9:])}
    for name, part in shards.items():
        save_file(part, path / name)
    weight_map = {tensor: name for name, part in shards.items() for tensor in part}
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (path / FILE).unlink()


def read_all(config: ModelConfig, checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return {name: checkpoint.read(name, torch.float32) for name in expected_tensors(config)}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("source", ["one file", "shards", "gguf"])
def test_every_format_brings_the_models_own_parameters(
    source: str, tied: bool, tmp_path: Path
) -> None:
    model = save_tiny_llama(tmp_path, tie_word_embeddings=tied)
    path = tmp_path
    if source == "shards":
        split_into_shards(tmp_path)
    if source == "gguf":
        path = tmp_path / "tiny.gguf"
        write_gguf(path, model)
    weights = read_all(*open_path(path))
    expected = dict(model.named_parameters())
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q8_0"])
def test_gguf_types_are_dequantized(kind: str, tmp_path: Path) -> None:
    model, path = tiny_llama(), tmp_path / "tiny.gguf"
    quantization = gguf.GGMLQuantizationType[kind]
    write_gguf(path, model, quantization)
    weights = read_all(*open_path(path))
    for name, parameter in model.named_parameters():
        expected = parameter.detach().numpy()
        if parameter.dim() > 1:
            quantized = gguf.quants.quantize(expected, quantization)
            expected = gguf.quants.dequantize(quantized, quantization)
        assert torch.equal(weights[name], torch.from_numpy(expected)), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model.norm.weight": None},
            r"tensor model.norm.weight is missing \(expected with shape \(64,\)\)",
        ),
        (
            {"model.layers.1.mlp.up_proj.weight": torch.zeros(96, 32)},
            r"model.safetensors: tensor model.layers.1.mlp.up_proj.weight has the shape \(96, 32\);"
            r" the model's config says \(96, 64\)",
        ),
        (
            {"lm_head.weight": torch.zeros(96, 64, dtype=torch.int8)},
            "tensor lm_head.weight has the type I8; supported are BF16, F16, F32",
        ),
    ],
    ids=["missing", "wrong shape", "wrong type"],
)
def test_a_wrong_tensor_is_named_with_what_was_expected(
    changes: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    save_tiny_llama(tmp_path)
    change_tensors(tmp_path, changes)
    with pytest.raises(StartupError, match=f"^{tmp_path}.*{message}"):
        load_weights(*open_path(tmp_path), torch.float32)


def test_a_missing_tensor_of_a_gguf_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama())
    whole = path.read_bytes()
    assert whole.count(b"blk.1.attn_v.weight") == 1
    path.write_bytes(whole.replace(b"blk.1.attn_v.weight", b"blk.1.attn_w.weight"))
    with pytest.raises(StartupError, match=r"tiny.gguf: tensor model.layers.1.self_attn.v_proj"):
        load_weights(*open_path(path), torch.float32)


def test_a_gguf_type_that_is_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama(), gguf.GGMLQuantizationType.Q5_0)
    with pytest.raises(StartupError, match=r"token_embd.weight has the type Q5_0; supported are"):
        load_weights(*open_path(path), torch.float32)


@pytest.mark.parametrize("size", [0, 7, 300, -1])
def test_a_cut_safetensors_file_is_refused(size: int, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:size])
    message = f"{FILE}: not a whole safetensors file: .*{len(whole[:size])} bytes.*Download"
    with pytest.raises(StartupError, match=message):
        open_path(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    split_into_shards(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(StartupError, match=f"b.safetensors: named by {INDEX}, but missing"):
        open_path(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}'])
def test_a_broken_index_is_named(content: str, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(StartupError, match=f"{INDEX}: not a safetensors index"):
        open_path(tmp_path)


def test_a_directory_without_weights_says_which_formats_are_read(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    (tmp_path / FILE).rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(StartupError, match="neither model.safetensors nor .*convert them"):
        open_path(tmp_path)


def test_tensors_that_the_model_does_not_use_are_logged_once(tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    change_tensors(
        tmp_path,
        {
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
            "vision.weight": torch.zeros(1),
        },
    )
    with capture_logs() as logs:
        load_weights(*open_path(tmp_path), torch.float32)
    assert [(entry["count"], entry["names"]) for entry in logs] == [(1, ["vision.weight"])]


def test_dummy_weights_are_normal_and_follow_from_the_seed(tmp_path: Path) -> None:
    tiny_llama().config.save_pretrained(tmp_path)
    config_file = tmp_path / "config.json"
    fields = json.loads(config_file.read_text()) | {"architectures": ["LlamaForCausalLM"]}
    config_file.write_text(json.dumps(fields))
    first, again, other = (read_all(*open_path(tmp_path, "dummy", seed=seed)) for seed in (1, 1, 2))
    matrices = [name for name, weight in first.items() if weight.dim() == 2]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in matrices)
    drawn = torch.cat([first[name].flatten() for name in matrices])
    assert drawn.std() == pytest.approx(0.02, rel=0.02)
    assert drawn.mean() == pytest.approx(0, abs=0.0005)
    # No matrix is another's copy.
    assert len({first[name].flatten()[:16].sum().item() for name in matrices}) == len(matrices)


def test_model_hash_names_content_and_dtype_but_not_the_file(tmp_path: Path) -> None:
    model = save_tiny_llama(tmp_path / "one")
    model.save_pretrained(tmp_path / "same")
    save_tiny_llama(tmp_path / "other", seed=1)
    hashes = {
        name: model_hash(*open_path(tmp_path / name), torch.float32)
        for name in ("one", "same", "other")
    }
    assert len(hashes["one"]) == 16
    assert hashes["one"] == hashes["same"] != hashes["other"]
    assert model_hash(*open_path(tmp_path / "one"), torch.bfloat16) != hashes["one"]
    # The same weights under another rope are another model.
    config_file = tmp_path / "same" / "config.json"
    fields = json.loads(config_file.read_text())
    fields["rope_parameters"]["rope_theta"] = 5e5
    config_file.write_text(json.dumps(fields))
    assert model_hash(*open_path(tmp_path / "same"), torch.float32) != hashes["one"]
