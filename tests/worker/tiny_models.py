"""Small random Llama models, as transformers has them and saved in both formats we read."""

import copy
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Return a model of two layers and 96 tokens; `changes` are LlamaConfig's own fields."""
    fields: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 96,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        # Large enough that the largest logit stands out of float32's rounding.
        "initializer_range": 0.3,
        "attn_implementation": "eager",
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**(fields | changes))).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.2)
    return model


def save_tiny_llama(path: Path, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Save a tiny model as a directory with config.json and model.safetensors, and return it."""
    model = tiny_llama(seed, **changes)
    model.save_pretrained(path)
    return model


def in_bfloat16(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Return a copy as transformers would have loaded it in bfloat16: rope stays in float32."""
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.bfloat16()
    return rounded


def logits_of(model: LlamaForCausalLM, token_ids: list[int]) -> torch.Tensor:
    """Return transformers' logits after each of the tokens, float32 [num_tokens, vocab_size]."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([token_ids])).logits[0]
    return logits.float()


def greedy_tokens(model: LlamaForCausalLM, prompt: list[int], count: int) -> list[int]:
    """Return the tokens that transformers generates greedily, never ending early."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(logits_of(model, tokens)[-1].argmax()))
    return tokens[len(prompt) :]


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
) -> None:
    """Write the model as llama.cpp's converter does: its names, its order of rows, `kind`."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_eos_token_id(2)
    writer.add_uint32("tokenizer.ggml.eot_token_id", 7)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        weight = parameter.float().numpy()
        if "q_proj" in name:
            weight = _interleave(weight, config.num_attention_heads)
        if "k_proj" in name:
            weight = _interleave(weight, config.num_key_value_heads)
        # Norms stay in float32, as converters keep them.
        stored = kind if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
        gguf_name = names.get_name(name, try_suffixes=(".weight",))
        assert gguf_name is not None, name
        writer.add_tensor(
            gguf_name,
            gguf.quants.quantize(weight, stored),
            raw_dtype=stored,
        )
    if config.rope_parameters["rope_type"] == "llama3":
        dimensions = np.arange(0, config.head_dim, 2, dtype=np.float32) / config.head_dim
        plain = config.rope_parameters["rope_theta"] ** -dimensions
        writer.add_tensor("rope_freqs.weight", plain / model.model.rotary_emb.inv_freq.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _interleave(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Put the rows that rope rotates together next to each other, as llama.cpp wants them."""
    rows, columns = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)
