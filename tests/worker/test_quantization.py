"""octavo.worker.quantization: which numbers a model's matrices end up in, and what they take."""

import dataclasses
from pathlib import Path

import gguf
import pytest
import torch

from octavo.kernels.cpu import library
from octavo.kernels.linear import Layout, PackedWeight, linear
from octavo.startup import StartupError, StartupReport
from octavo.worker.loading import describe_worker, load_model_runner, open_model
from octavo.worker.plan import PlanSettings, make_plan
from octavo.worker.quantization import MatrixReader
from octavo.worker.settings import LoadFormat, Quantization, WorkerSettings
from octavo.worker.weights import load_weights, model_hash, weights_bytes
from tests.worker.runners import settings_for
from tests.worker.tiny_models import save_tiny_llama, tiny_llama, write_gguf

Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
K_PROJ = "model.layers.0.self_attn.k_proj.weight"


def reader(path: Path, quantization: Quantization | None) -> MatrixReader:
    return MatrixReader(open_model(settings_for(path))[1], torch.float32, quantization)


def gguf_settings(path: Path) -> WorkerSettings:
    return dataclasses.replace(settings_for(path), quantization="gguf")


@pytest.mark.parametrize(("quantization", "steps"), [("int8", 254), ("int4", 30)])
def test_a_matrix_is_as_close_as_its_bits_allow(
    quantization: Quantization, steps: int, tmp_path: Path
) -> None:
    model = save_tiny_llama(tmp_path)
    weight = model.get_parameter(Q_PROJ).detach()
    # Rows of the identity, which become bytes without loss, bring the weight back.
    packed = reader(tmp_path, quantization).read([Q_PROJ])
    restored = linear(torch.eye(weight.shape[1]), packed).T
    assert (restored - weight).abs().max() <= 1.1 * 2 * weight.abs().max() / steps


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_a_gguf_file_keeps_every_bit_of_its_weights(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama(), gguf.GGMLQuantizationType[kind])
    _, checkpoint = open_model(gguf_settings(path))
    packed = reader(path, "gguf").read([Q_PROJ, K_PROJ])
    assert packed.layout is (Layout.Q8 if kind == "Q8_0" else Layout.Q4)
    stored = torch.cat([checkpoint.read(name, torch.float32) for name in (Q_PROJ, K_PROJ)])
    restored = linear(torch.eye(stored.shape[1]), packed).T
    torch.testing.assert_close(restored, stored, rtol=3e-7, atol=1e-8)


def test_a_gguf_files_floats_stay_floats(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama(), gguf.GGMLQuantizationType.F16)
    assert reader(path, "gguf").read([Q_PROJ]).layout in (Layout.PANELS, Layout.PLAIN)


@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_only_a_gguf_file_has_weights_of_its_own(load_format: LoadFormat, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path)
    settings = dataclasses.replace(gguf_settings(tmp_path), load_format=load_format)
    with pytest.raises(StartupError, match="--quantization gguf runs .* Give int8 or int4"):
        open_model(settings)


@pytest.mark.parametrize("quantization", ["int8", "int4", "gguf"])
def test_the_plan_knows_what_the_weights_take(quantization: Quantization, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama(), gguf.GGMLQuantizationType.Q4_1)
    settings = dataclasses.replace(settings_for(path), quantization=quantization)
    config, checkpoint = open_model(settings)
    expected = weights_bytes(config, checkpoint, torch.float32, quantization)
    loaded = load_model_runner(settings, StartupReport(None)).describe()
    assert loaded.memory.weights_bytes == expected
    assert describe_worker(settings)[1].memory == loaded.memory
    planned = make_plan(
        "tiny", path, PlanSettings(dtype="float32", quantization=quantization, block_size=4)
    )
    assert (planned.weights_bytes, planned.quantization) == (expected, quantization)
    # Of panels that are full, all bytes are counted.
    weights = load_weights(config, checkpoint, torch.float32, quantization)
    down = weights.layers[0].down_proj
    assert isinstance(down, PackedWeight)
    if down.layout is not Layout.PLAIN and down.out_features % 64 == 0:
        names = {"model.layers.0.mlp.down_proj.weight": (down.out_features, down.in_features)}
        assert reader(path, quantization).num_bytes(names) == down.data.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_the_plan_knows_what_the_weights_take_without_a_compiler(
    quantization: Quantization, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "load", lambda: None)
    save_tiny_llama(tmp_path)
    config, checkpoint = open_model(settings_for(tmp_path))
    weights = load_weights(config, checkpoint, dtype, quantization)
    tensors, matrices = [weights.embed_tokens, weights.norm], [weights.lm_head]
    for layer in weights.layers:
        tensors += layer.input_layernorm, layer.post_attention_layernorm
        matrices += layer.qkv_proj, layer.o_proj, layer.gate_up_proj, layer.down_proj
    tensors += [matrix.data for matrix in matrices if isinstance(matrix, PackedWeight)]
    assert len(tensors) == 2 + len(matrices) + 2 * len(weights.layers)
    held = sum(tensor.nbytes for tensor in tensors)
    assert weights_bytes(config, checkpoint, dtype, quantization) == held


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_the_head_of_a_4_bit_model_has_8_bits(tied: bool, tmp_path: Path) -> None:
    save_tiny_llama(tmp_path, tie_word_embeddings=tied)
    config, checkpoint = open_model(settings_for(tmp_path))
    weights = load_weights(config, checkpoint, torch.float32, "int4")
    head, projection = weights.lm_head, weights.layers[0].o_proj
    assert isinstance(head, PackedWeight) and isinstance(projection, PackedWeight)
    assert head.layout in (Layout.INT8, Layout.PLAIN)
    assert projection.layout in (Layout.Q4, Layout.PLAIN)


def test_kv_is_not_interchangeable_between_quantizations(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, tiny_llama(), gguf.GGMLQuantizationType.Q8_0)
    model = open_model(settings_for(path))
    kinds: tuple[Quantization | None, ...] = (None, "int8", "int4", "gguf")
    assert len({model_hash(*model, torch.float32, kind) for kind in kinds}) == len(kinds)
