"""A checkpoint in one GGUF file: llama.cpp's names and layout; read as floats, or as it is."""

from collections.abc import Mapping

import torch
from torch import Tensor

from octavo.gguf_file import GGUFFile, GGUFTensor
from octavo.kernels.linear import Layout
from octavo.kernels.quantized_weight import QuantizedWeight

from .checkpoint import StoredTensor, sampled_file_hash
from .dequantize import SUPPORTED_TYPES, dequantize
from .gguf_blocks import LAYOUTS, quantized_weight
from .models.config import ModelConfig

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GGUFCheckpoint:
    """An opened GGUF file of the Llama family."""

    readable_types = frozenset(kind.name for kind in SUPPORTED_TYPES)

    def __init__(self, file: GGUFFile, config: ModelConfig) -> None:
        self.path = file.path
        self._file = file
        self._config = config
        self._tensors = {
            _hugging_face_name(tensor.name): StoredTensor(
                file.path, tensor.name, tensor.shape, tensor.type.name
            )
            for tensor in file.tensors.values()
        }

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        return self._tensors

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        tensor = self._file.tensors[self._tensors[name].name]
        weight = dequantize(self._raw(tensor), tensor.type, dtype).view(tensor.shape)
        return self._in_our_order(name, weight)

    def quantized_layout(self, name: str) -> Layout | None:
        """Return what `read_quantized` would answer in; None where the type is not run as it is."""
        stored = self._tensors.get(name)
        return None if stored is None else LAYOUTS.get(self._file.tensors[stored.name].type)

    def read_quantized(self, name: str) -> QuantizedWeight:
        """Return a matrix in the numbers that the file has."""
        tensor = self._file.tensors[self._tensors[name].name]
        weight = quantized_weight(self._raw(tensor), tensor.type, tensor.shape[0])
        return weight.with_rows(lambda rows: self._in_our_order(name, rows))

    def content_hash(self) -> bytes:
        return sampled_file_hash(self.path)

    def _raw(self, tensor: GGUFTensor) -> Tensor:
        # A copy, because torch has no read-only tensors, and the mapped file is read-only.
        return torch.from_numpy(self._file.read(tensor).copy())

    def _in_our_order(self, name: str, weight: Tensor) -> Tensor:
        if name.endswith("q_proj.weight"):
            return _pair_halves(weight, self._config.num_heads)
        if name.endswith("k_proj.weight"):
            return _pair_halves(weight, self._config.num_kv_heads)
        return weight


def _hugging_face_name(name: str) -> str:
    """Return what Hugging Face calls a tensor: blk.7.attn_q.weight is layer 7's q_proj."""
    match name.split("."):
        case ["blk", layer, part, kind] if part in _LAYER_NAMES:
            return f"model.layers.{layer}.{_LAYER_NAMES[part]}.{kind}"
        case [part, kind] if part in _NAMES:
            return f"{_NAMES[part]}.{kind}"
    return name


def _pair_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Undo llama.cpp's order of a head's rows.

    There the two numbers that rope rotates together are neighbours (0 1, 2 3, ...); here, as in
    Hugging Face's checkpoints, they are half a head apart.
    """
    rows, columns = weight.shape
    pairs = weight.view(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.transpose(1, 2).reshape(rows, columns)
