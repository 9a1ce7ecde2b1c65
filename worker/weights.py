"""Stored weights → the decoder's: every tensor checked before the first is read."""

import math
from collections.abc import Iterator
from hashlib import blake2b

import structlog
import torch

from octavo.kernels.decoder_layers import LayerWeights
from octavo.kernels.linear import PackedWeight, pack_weight
from octavo.startup import StartupError

from .checkpoint import Checkpoint
from .models.config import ModelConfig
from .models.decoder import DecoderWeights

# Computed from the config here; some converters store them nevertheless.
_DERIVED_SUFFIXES = ("rotary_emb.inv_freq", "rope_freqs.weight")

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
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    for i in range(config.num_layers):
        for name, shape in layer.items():
            shapes[f"model.layers.{i}.{name}.weight"] = shape
    return shapes


def weights_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return the memory of the loaded weights; a tied head is packed, apart from the embedding."""
    num_weights = sum(math.prod(shape) for shape in expected_tensors(config).values())
    if config.tie_word_embeddings:
        num_weights += config.vocab_size * config.hidden_size
    return num_weights * dtype.itemsize


def load_weights(config: ModelConfig, checkpoint: Checkpoint, dtype: torch.dtype) -> DecoderWeights:
    """Read and pack all weights as `dtype`.

    Raises StartupError naming file and tensor if one is missing or has another shape or type than
    the model's config says.
    """
    _check(config, checkpoint)

    def packed(*names: str) -> PackedWeight:
        parts = [checkpoint.read(f"{name}.weight", dtype) for name in names]
        return pack_weight(parts[0] if len(parts) == 1 else torch.cat(parts))

    def layers() -> Iterator[LayerWeights]:
        for i in range(config.num_layers):
            layer = f"model.layers.{i}"
            attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
            yield LayerWeights(
                input_layernorm=checkpoint.read(f"{layer}.input_layernorm.weight", dtype),
                qkv_proj=packed(
                    f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"
                ),
                o_proj=packed(f"{attention}.o_proj"),
                post_attention_layernorm=checkpoint.read(
                    f"{layer}.post_attention_layernorm.weight", dtype
                ),
                gate_up_proj=packed(f"{mlp}.gate_proj", f"{mlp}.up_proj"),
                down_proj=packed(f"{mlp}.down_proj"),
            )

    embed_tokens = checkpoint.read("model.embed_tokens.weight", dtype)
    head = embed_tokens if config.tie_word_embeddings else checkpoint.read("lm_head.weight", dtype)
    return DecoderWeights(
        embed_tokens=embed_tokens,
        layers=tuple(layers()),
        norm=checkpoint.read("model.norm.weight", dtype),
        lm_head=pack_weight(head, out_dtype=torch.float32),
    )


def model_hash(config: ModelConfig, checkpoint: Checkpoint, dtype: torch.dtype) -> bytes:
    """Return 16 bytes that are equal for workers whose KV is interchangeable.

    BLAKE2b over the checkpoint's content (see `sampled_file_hash`; names of files do not count),
    the model's config and the dtype.
    """
    digest = blake2b(checkpoint.content_hash(), digest_size=16)
    digest.update(f"{config!r} {dtype}".encode())
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
