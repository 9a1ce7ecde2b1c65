"""octavo.worker.models.config: what is read from checkpoints, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from octavo.gguf_file import GGUFFile
from octavo.startup import StartupError
from octavo.worker.models.config import (
    LinearRopeScaling,
    Llama3RopeScaling,
    ModelConfig,
)
from tests.worker.tiny_models import LLAMA3_ROPE, tiny_llama, write_gguf

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "eos_token_id": 2,
}


def read(**changes: Any) -> ModelConfig:
    return ModelConfig.from_hf(LLAMA | changes, {}, "dir/config.json")


def test_what_is_absent_takes_llamas_defaults() -> None:
    config = read()
    assert (config.num_kv_heads, config.head_dim) == (4, 16)
    assert (config.rms_norm_eps, config.rope_theta) == (1e-6, 10000.0)
    assert config.rope_scaling is None
    assert not config.tie_word_embeddings


def test_mistral_without_sliding_window_is_the_same_model() -> None:
    assert read(architectures=["MistralForCausalLM"], sliding_window=None) == read()


def test_both_spellings_of_rope_mean_the_same() -> None:
    older = read(
        rope_theta=5e5, rope_scaling={k: v for k, v in LLAMA3_ROPE.items() if k != "rope_theta"}
    )
    newer = read(rope_parameters=LLAMA3_ROPE | {"rope_theta": 5e5})
    assert older == newer
    assert newer.rope_scaling == Llama3RopeScaling(8.0, 1.0, 4.0, 32)
    # The oldest files say `type`.
    assert read(rope_scaling={"type": "linear", "factor": 2.0}).rope_scaling == LinearRopeScaling(2)


def test_end_tokens_come_from_the_generation_config_first() -> None:
    assert ModelConfig.from_hf(LLAMA, {"eos_token_id": [5, 7, 5]}, "x").eos_token_ids == (5, 7)
    assert ModelConfig.from_hf(LLAMA, {}, "x").eos_token_ids == (2,)
    assert read(eos_token_id=None).eos_token_ids == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "GPT2LMHeadModel is not supported; supported are LlamaForCausalLM and Mistral",
        ),
        ({"architectures": None}, "the architecture none is not supported"),
        ({"architectures": 5}, "the architecture none is not supported"),
        ({"rope_scaling": 5}, "rope_scaling is 5, not an object"),
        ({"sliding_window": 4096}, "sliding_window is 4096; only None is supported"),
        ({"attention_bias": True}, "attention_bias is True; only False is supported"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu' is supported"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers is 'two', not a positive whole number"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1, not a positive number"),
        ({"num_key_value_heads": 3}, "4 attention heads .* among 3 key-value heads"),
        (
            {"num_attention_heads": 130, "num_key_value_heads": 2, "head_dim": 2},
            "130 attention heads share 2 key-value heads; at most 64 can share one",
        ),
        ({"head_dim": 15}, "head_dim is 15, not even"),
        ({"head_dim": 258}, "head_dim is 258; at most 256 is supported"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type is 'yarn'; supported are default"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "a part of each head"),
    ],
)
def test_what_cannot_be_run_rightly_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(StartupError, match=f"^dir/config.json: .*{message}"):
        read(**changes)


def test_a_gguf_file_says_the_same_as_the_config_it_was_made_from(tmp_path: Path) -> None:
    model = tiny_llama(tie_word_embeddings=True)
    write_gguf(tmp_path / "tiny.gguf", model)
    from_hf = ModelConfig.from_hf(
        model.config.to_dict() | {"architectures": ["LlamaForCausalLM"]},
        {"eos_token_id": [2, 7]},
        "x",
    )
    from_gguf = ModelConfig.from_gguf(GGUFFile.open(tmp_path / "tiny.gguf"))
    # The header keeps float32 numbers.
    assert from_gguf.rms_norm_eps == pytest.approx(from_hf.rms_norm_eps)
    assert from_gguf.tie_word_embeddings
    same = {name: getattr(from_hf, name) for name in from_hf.__slots__ if name != "rms_norm_eps"}
    assert same == {name: getattr(from_gguf, name) for name in same}
