"""The models that are measured: shapes of well-known ones, with weights drawn at random."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import tokenizers


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder of the Llama family; names are those of the worker's ModelConfig."""

    name: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    is_tied: bool

    @property
    def num_layer_weights(self) -> int:
        """Of the matrices that every token is multiplied by."""
        heads = self.num_heads + self.num_kv_heads
        layer = self.hidden_size * (2 * heads * self.head_dim + 3 * self.intermediate_size)
        return self.num_layers * layer

    @property
    def num_weights(self) -> int:
        """The same with the head, which tokens are multiplied by that another is sampled after."""
        return self.num_layer_weights + self.vocab_size * self.hidden_size

    def kv_bytes_per_token(self, itemsize: int) -> int:
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * itemsize


LLAMA_8B = ModelShape("Llama-3.1-8B shapes", 4096, 32, 32, 8, 128, 14_336, 128_256, False)
LLAMA_8B_FP8 = replace(LLAMA_8B, name="Llama-3.1-8B shapes in FP8")
# Its heads are normalised too, which costs next to nothing.
QWEN3_600M = ModelShape("Qwen3-0.6B shapes", 1024, 28, 16, 8, 128, 3072, 151_936, True)


def write_model(shape: ModelShape, directory: Path) -> Path:
    """Write what `load_format="dummy"` needs: a config, and a tokenizer of as many words."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": shape.is_tied,
        "hidden_act": "silu",
        "eos_token_id": 0,
        "bos_token_id": 1,
        "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    words = {f"w{token}": token for token in range(shape.vocab_size)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(words, []))
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "w0"}))
    return directory
