"""What the decoder must know about a model, read from a Hugging Face config or a GGUF header."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.gguf_file import GGUFFile
from octavo.kernels.kv_pages import MAX_HEAD_DIM
from octavo.kernels.paged_attention import MAX_HEADS_PER_KV_HEAD
from octavo.startup import StartupError

SUPPORTED_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")


@dataclass(frozen=True, slots=True)
class LinearRopeScaling:
    """Stretches every wavelength by one factor."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3RopeScaling:
    """Stretches long wavelengths, leaves short ones, and blends in between (Llama 3.1)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, slots=True)
class FrequencyDivisors:
    """One divisor for each frequency, head_dim / 2 of them: how GGUF spells Llama 3.1's rule."""

    divisors: tuple[float, ...]


RopeScaling = LinearRopeScaling | Llama3RopeScaling | FrequencyDivisors


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A decoder of the Llama family. Models differ in these fields and in nothing else.

    Field names are those of config.json, except that `num_layers`, `num_heads` and `num_kv_heads`
    are shorter.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    max_position_embeddings: int
    tie_word_embeddings: bool
    eos_token_ids: tuple[int, ...]

    @staticmethod
    def from_hf(
        config: Mapping[str, Any], generation_config: Mapping[str, Any], source: str
    ) -> "ModelConfig":
        """Read config.json and generation_config.json; `source` is the path named in errors."""
        fields = _Fields(config, source)
        _refuse_other_architectures(fields)
        hidden_size = fields.integer("hidden_size")
        num_heads = fields.integer("num_attention_heads")
        rope = _Fields(_rope_parameters(fields), source)
        return _checked(
            source,
            ModelConfig(
                hidden_size=hidden_size,
                num_layers=fields.integer("num_hidden_layers"),
                num_heads=num_heads,
                num_kv_heads=fields.integer("num_key_value_heads", num_heads),
                head_dim=fields.integer("head_dim", hidden_size // num_heads),
                intermediate_size=fields.integer("intermediate_size"),
                vocab_size=fields.integer("vocab_size"),
                rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
                rope_theta=rope.number("rope_theta", 10000.0),
                rope_scaling=_hf_rope_scaling(rope),
                max_position_embeddings=fields.integer("max_position_embeddings"),
                tie_word_embeddings=fields.get("tie_word_embeddings") is True,
                eos_token_ids=_token_ids(
                    generation_config.get("eos_token_id", fields.get("eos_token_id"))
                ),
            ),
        )

    @staticmethod
    def from_gguf(file: GGUFFile) -> "ModelConfig":
        """Read a GGUF header. Tied embeddings and Llama 3.1's rope show in the tensors there."""
        source = str(file.path)
        fields = _Fields(file.metadata, source)
        architecture = fields.get("general.architecture")
        if architecture != "llama":
            raise StartupError(
                f"{source}: general.architecture is {architecture!r}; only 'llama' is supported."
            )
        if fields.get("llama.expert_count"):
            raise StartupError(f"{source}: models with experts are not supported.")
        hidden_size = fields.integer("llama.embedding_length")
        num_heads = fields.integer("llama.attention.head_count")
        head_dim = fields.integer("llama.attention.key_length", hidden_size // num_heads)
        if fields.integer("llama.rope.dimension_count", head_dim) != head_dim:
            raise StartupError(f"{source}: rope over a part of each head is not supported.")
        embedding = file.tensors.get("token_embd.weight")
        if embedding is None:
            raise StartupError(f"{source}: tensor token_embd.weight is missing.")
        return _checked(
            source,
            ModelConfig(
                hidden_size=hidden_size,
                num_layers=fields.integer("llama.block_count"),
                num_heads=num_heads,
                num_kv_heads=fields.integer("llama.attention.head_count_kv", num_heads),
                head_dim=head_dim,
                intermediate_size=fields.integer("llama.feed_forward_length"),
                vocab_size=embedding.shape[0],
                rms_norm_eps=fields.number("llama.attention.layer_norm_rms_epsilon"),
                rope_theta=fields.number("llama.rope.freq_base", 10000.0),
                rope_scaling=_gguf_rope_scaling(fields, file),
                max_position_embeddings=fields.integer("llama.context_length"),
                tie_word_embeddings="output.weight" not in file.tensors,
                eos_token_ids=_token_ids(
                    [
                        fields.get(f"tokenizer.ggml.{name}_token_id")
                        for name in ("eos", "eot", "eom")
                    ]
                ),
            ),
        )


class _Fields:
    """Reads named values of a given kind; a wrong one is an error that names file and field."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self._values = values
        self.source = source

    def get(self, name: str) -> Any:
        return self._values.get(name)

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise StartupError(f"{self.source}: {name} is {value!r}, not a positive whole number.")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
            raise StartupError(f"{self.source}: {name} is {value!r}, not a positive number.")
        return float(value)

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._values.get(name) or {}
        if not isinstance(value, dict):
            raise StartupError(f"{self.source}: {name} is {value!r}, not an object.")
        return value

    def _value(self, name: str, default: float | None) -> Any:
        value = self._values.get(name)
        if value is not None:
            return value
        if default is None:
            raise StartupError(f"{self.source}: {name} is missing.")
        return default


def _refuse_other_architectures(fields: _Fields) -> None:
    """Raise StartupError for what this decoder would run wrongly."""
    architectures = fields.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else "none"
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise StartupError(
            f"{fields.source}: the architecture {architecture} is not supported;"
            f" supported are {' and '.join(SUPPORTED_ARCHITECTURES)}."
        )
    for name, expected in (
        ("hidden_act", "silu"),
        ("sliding_window", None),
        ("attention_bias", False),
        ("mlp_bias", False),
    ):
        value = fields.get(name)
        if value is not None and value != expected:
            raise StartupError(
                f"{fields.source}: {name} is {value!r}; only {expected!r} is supported."
            )


def _rope_parameters(fields: _Fields) -> dict[str, Any]:
    """Return rope's parameters from either spelling: `rope_parameters`, or the older two fields."""
    if parameters := fields.mapping("rope_parameters"):
        return parameters
    return {"rope_theta": fields.get("rope_theta"), **fields.mapping("rope_scaling")}


def _hf_rope_scaling(rope: _Fields) -> RopeScaling | None:
    if rope.number("partial_rotary_factor", 1.0) != 1.0:
        raise StartupError(f"{rope.source}: rope over a part of each head is not supported.")
    match rope.get("rope_type") or rope.get("type") or "default":
        case "default":
            return None
        case "linear":
            return LinearRopeScaling(rope.number("factor"))
        case "llama3":
            return Llama3RopeScaling(
                factor=rope.number("factor"),
                low_freq_factor=rope.number("low_freq_factor"),
                high_freq_factor=rope.number("high_freq_factor"),
                original_max_position_embeddings=rope.integer("original_max_position_embeddings"),
            )
        case other:
            raise StartupError(
                f"{rope.source}: rope_type is {other!r}; supported are default, linear and llama3."
            )


def _gguf_rope_scaling(fields: _Fields, file: GGUFFile) -> RopeScaling | None:
    if (tensor := file.tensors.get("rope_freqs.weight")) is not None:
        if tensor.type.name != "F32":
            raise StartupError(f"{file.path}: rope_freqs.weight is {tensor.type.name}, not F32.")
        return FrequencyDivisors(tuple(file.read(tensor).view("<f4").tolist()))
    match fields.get("llama.rope.scaling.type") or "none":
        case "none":
            return None
        case "linear":
            return LinearRopeScaling(fields.number("llama.rope.scaling.factor"))
        case other:
            raise StartupError(
                f"{fields.source}: llama.rope.scaling.type is {other!r};"
                " supported are none and linear."
            )


def _token_ids(value: Any) -> tuple[int, ...]:
    """Return end tokens from a number, a list or nothing: each once, in their order."""
    values = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(token for token in values if isinstance(token, int)))


def _checked(source: str, config: ModelConfig) -> ModelConfig:
    """Return `config`, whose numbers fit together; raises StartupError if they do not."""
    if config.num_heads % config.num_kv_heads:
        raise StartupError(
            f"{source}: {config.num_heads} attention heads cannot be shared out evenly among"
            f" {config.num_kv_heads} key-value heads."
        )
    if config.num_heads > MAX_HEADS_PER_KV_HEAD * config.num_kv_heads:
        raise StartupError(
            f"{source}: {config.num_heads} attention heads share {config.num_kv_heads} key-value"
            f" heads; at most {MAX_HEADS_PER_KV_HEAD} can share one."
        )
    if config.head_dim % 2:
        raise StartupError(f"{source}: head_dim is {config.head_dim}, not even.")
    if config.head_dim > MAX_HEAD_DIM:
        raise StartupError(
            f"{source}: head_dim is {config.head_dim}; at most {MAX_HEAD_DIM} is supported."
        )
    scaling = config.rope_scaling
    if isinstance(scaling, FrequencyDivisors) and len(scaling.divisors) != config.head_dim // 2:
        raise StartupError(
            f"{source}: rope_freqs.weight has {len(scaling.divisors)} values;"
            f" heads of {config.head_dim} need {config.head_dim // 2}."
        )
    return config
