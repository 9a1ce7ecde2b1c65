"""octavo.worker.models.rope against transformers' own frequencies."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from octavo.worker.models.config import FrequencyDivisors, ModelConfig
from octavo.worker.models.rope import cos_sin_table, inverse_frequencies
from tests.worker.tiny_models import LLAMA3_ROPE

DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def both(rope: dict[str, Any]) -> tuple[ModelConfig, LlamaRotaryEmbedding]:
    theirs = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rope_parameters=rope,
    )
    fields = theirs.to_dict() | {"architectures": ["LlamaForCausalLM"]}
    return ModelConfig.from_hf(fields, {}, "x"), LlamaRotaryEmbedding(theirs)


@pytest.mark.parametrize(
    "rope",
    [DEFAULT_ROPE, DEFAULT_ROPE | {"rope_type": "linear", "factor": 4.0}, LLAMA3_ROPE],
    ids=lambda rope: rope["rope_type"],
)
def test_table_is_transformers(rope: dict[str, Any]) -> None:
    ours, theirs = both(rope)
    positions = torch.arange(512)
    cos, sin = theirs(torch.zeros(1), positions[None])
    # There each half of a head has the angles once.
    expected = torch.cat((cos[0, :, :32], sin[0, :, :32]), dim=-1)
    torch.testing.assert_close(cos_sin_table(ours, 512), expected, rtol=0, atol=1e-6)


def test_divisors_of_a_gguf_file_say_llama3s_rule() -> None:
    plain, _ = both(DEFAULT_ROPE)
    llama3, _ = both(LLAMA3_ROPE)
    divisors = inverse_frequencies(plain) / inverse_frequencies(llama3)
    assert divisors.max() == 8.0 and divisors.min() == 1.0
    fields = {name: getattr(plain, name) for name in plain.__slots__}
    fields["rope_scaling"] = FrequencyDivisors(tuple(divisors.tolist()))
    torch.testing.assert_close(
        inverse_frequencies(ModelConfig(**fields)), inverse_frequencies(llama3)
    )
