"""Writes a model as a Hugging Face directory, for peers that do not read GGUF files.

    python -m benchmarks.peers.export_model DIRECTORY [--model demo] [--w8a8]

Weights are dequantized once and rounded to bfloat16: what the peer loads is what Octavo computes
with from the same GGUF file. With --w8a8 linear layers are int8, one scale for each output channel,
and activations are quantized token by token as they come (compressed-tensors' int-quantized form).
"""

import json
from pathlib import Path

import cyclopts
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from octavo.model_files import resolve_model

from .w8a8 import COMPRESSED_TENSORS, quantize_linears


def main(directory: Path, *, model: str = "demo", w8a8: bool = False) -> None:
    """Write config.json, the tokenizer and model.safetensors.

    Args:
        directory: where to; made if need be.
        model: a .gguf file, or `demo`.
        w8a8: quantize linear layers to int8.
    """
    gguf = resolve_model(model)
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    loaded.save_pretrained(directory)
    AutoTokenizer.from_pretrained(**source).save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text())
    config.pop("quantization_config", None)
    if w8a8:
        config["quantization_config"] = COMPRESSED_TENSORS
        path = directory / "model.safetensors"
        save_file(quantize_linears(load_file(path)), path, {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
