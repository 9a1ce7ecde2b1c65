"""Stored weights → the decoder's: every tensor checked before the first is read."""

import math
from collections.abc import Iterator
from hashlib import blake2b

import structlog
import torch
from torch import Tensor

from octavo.kernels.decoder_layers import LayerWeights
from octavo.kernels.device_layers import DeviceLayerWeights
from octavo.kernels.device_linear import DeviceWeight
from octavo.startup import StartupError

from .checkpoint import Checkpoint
from .device_matrices import DeviceMatrixReader
from .models.config import ModelConfig
from .models.decoder import DecoderWeights
from .quantization import MatrixReader
from .quantized_checkpoint import QuantizedCheckpoint
from .settings import Quantization

# Computed from the config here; some converters store them nevertheless.
_DERIVED_SUFFIXES = ("rotary_emb.inv_freq", "rope_freqs.weight")

# What LayerWeights stacks, by its names.
_MATRICES = {
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o_proj": ("self_attn.o_proj",),
    "gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "down_proj": ("mlp.down_proj",),
}
_NORMS = ("input_layernorm", "post_attention_layernorm")
_EMBEDDING = "model.embed_tokens.weight"

_MOST_NAMES_LOGGED = 5


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that the model needs, under its Hugging Face name."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    q_size = config.num_heads * config.head_dim
    kv_size = config.num_kv_heads * config.head_dim
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (q_size, hidden),
        "self_attn.k_proj": (kv_size, hidden),
        "self_attn.v_proj": (kv_size, hidden),
        "self_attn.o_proj": (hidden, q_size),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    shapes: dict[str, tuple[int, ...]] = {
        _EMBEDDING: (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for i in range(config.num_layers):
        for name, shape in layer.items():
            shapes[f"model.layers.{i}.{name}.weight"] = shape
    return shapes


def shapes_of_matrices(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each matrix of the layers, as `expected_tensors` has it."""
    shapes = expected_tensors(config)
    groups = (each for i in range(config.num_layers) for each in _layer_matrices(i).values())
    return {name: shapes[name] for names in groups for name in names}


def weights_bytes(
    config: ModelConfig,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    quantization: Quantization | None = None,
    device: torch.device | None = None,
) -> int:
    """Return the memory of the weights that `load_weights` would return."""
    shapes = expected_tensors(config)
    reader = _matrix_reader(checkpoint, dtype, quantization, device)

    def of_matrix(names: tuple[str, ...], out_dtype: torch.dtype | None = None) -> int:
        return reader.num_bytes({name: shapes[name] for name in names}, out_dtype)

    num_others = math.prod(shapes[_EMBEDDING]) + sum(
        shape[0] for shape in shapes.values() if len(shape) == 1
    )
    has_head = not _shares_embedding(config, device)
    of_head = of_matrix(_head(config), torch.float32) if has_head else 0
    of_layers = sum(
        of_matrix(names) for i in range(config.num_layers) for names in _layer_matrices(i).values()
    )
    return num_others * dtype.itemsize + of_head + of_layers


def numbers_of(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    quantization: Quantization | None = None,
    device: torch.device | None = None,
) -> str:
    """Say for people what most of the weights are once they are loaded."""
    if quantization is not None:
        return quantization
    if device is not None and isinstance(checkpoint, QuantizedCheckpoint):
        return checkpoint.form.kind
    return str(dtype).removeprefix("torch.")


def load_weights(
    config: ModelConfig,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    quantization: Quantization | None = None,
    device: torch.device | None = None,
) -> DecoderWeights:
    """Read and pack all weights as `dtype`, the matrices of linear layers quantized if wished.

    Args:
        device: the one that steps are queued on; None: the CPU computes them.
    Raises StartupError naming file and tensor if one is missing or has another shape or type than
    the model's config says.
    """
    _check(config, checkpoint)
    reader = _matrix_reader(checkpoint, dtype, quantization, device)

    def vector(name: str) -> Tensor:
        return checkpoint.read(f"{name}.weight", dtype).to(device)

    def layers() -> Iterator[LayerWeights | DeviceLayerWeights]:
        for i in range(config.num_layers):
            first, second = (vector(f"model.layers.{i}.{name}") for name in _NORMS)
            matrices = _layer_matrices(i).items()
            if isinstance(reader, DeviceMatrixReader):
                yield DeviceLayerWeights(
                    input_layernorm=first,
                    post_attention_layernorm=second,
                    **{name: reader.read(parts) for name, parts in matrices},
                )
            else:
                yield LayerWeights(
                    input_layernorm=first,
                    post_attention_layernorm=second,
                    **{
                        name: reader.read(parts, is_gated=name == "gate_up_proj")
                        for name, parts in matrices
                    },
                )

    embed_tokens = checkpoint.read(_EMBEDDING, dtype).to(device)
    return DecoderWeights(
        embed_tokens=embed_tokens,
        layers=tuple(layers()),
        norm=vector("model.norm"),
        lm_head=(
            DeviceWeight(embed_tokens, torch.float32)
            if _shares_embedding(config, device)
            else reader.read(_head(config), out_dtype=torch.float32)
        ),
    )


def _matrix_reader(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    quantization: Quantization | None,
    device: torch.device | None,
) -> MatrixReader | DeviceMatrixReader:
    if device is None:
        return MatrixReader(checkpoint, dtype, quantization)
    return DeviceMatrixReader(checkpoint, dtype, quantization, device)


def _shares_embedding(config: ModelConfig, device: torch.device | None) -> bool:
    """Whether a tied head is the embedding itself: a device multiplies by it as it lies."""
    return config.tie_word_embeddings and device is not None


def _head(config: ModelConfig) -> tuple[str, ...]:
    return (_EMBEDDING if config.tie_word_embeddings else "lm_head.weight",)


def _layer_matrices(layer: int) -> dict[str, tuple[str, ...]]:
    """Return the matrices that each of LayerWeights' is made of."""
    return {
        name: tuple(f"model.layers.{layer}.{part}.weight" for part in parts)
        for name, parts in _MATRICES.items()
    }


def model_hash(
    config: ModelConfig,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    quantization: Quantization | None = None,
    cache_dtype: torch.dtype | None = None,
) -> bytes:
    """Return 16 bytes that are equal for workers whose KV is interchangeable.

    BLAKE2b over the checkpoint's content (see `sampled_file_hash`; names of files do not count),
    the model's config, the dtype, the quantization, and the cache's own dtype.
    """
    digest = blake2b(checkpoint.content_hash(), digest_size=16)
    digest.update(f"{config!r} {dtype} {quantization} {cache_dtype or dtype}".encode())
    return digest.digest()


def _check(config: ModelConfig, checkpoint: Checkpoint) -> None:
    expected = expected_tensors(config)
    for name, shape in expected.items():
        stored = checkpoint.tensors.get(name)
        if stored is None:
            raise StartupError(
                f"{checkpoint.path}: tensor {name} is missing (expected with shape {shape})."
                " The file is not whole, or belongs to another config."
            )
        if stored.shape != shape:
            raise StartupError(
                f"{stored.path}: tensor {stored.name} has the shape {stored.shape};"
                f" the model's config says {shape}."
            )
        if stored.type not in checkpoint.readable_types:
            raise StartupError(
                f"{stored.path}: tensor {stored.name} has the type {stored.type};"
                f" supported are {', '.join(sorted(checkpoint.readable_types))}."
            )
    unexpected = [
        name
        for name in checkpoint.tensors
        if name not in expected and not name.endswith(_DERIVED_SUFFIXES)
    ]
    # A tied head that is stored all the same is the embedding once more.
    if config.tie_word_embeddings and "lm_head.weight" in unexpected:
        unexpected.remove("lm_head.weight")
    if unexpected:
        structlog.get_logger().warning(
            "tensors in the checkpoint that the model does not use",
            path=str(checkpoint.path),
            count=len(unexpected),
            names=unexpected[:_MOST_NAMES_LOGGED],
        )
