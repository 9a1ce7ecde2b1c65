"""A model as Hugging Face keeps it: a directory with config.json and the weights."""

import json
from pathlib import Path
from typing import Any

from octavo.startup import StartupError

from .checkpoint import Checkpoint
from .dummy_checkpoint import DummyCheckpoint
from .models.config import ModelConfig
from .quantization_config import matrix_format
from .quantized_checkpoint import QuantizedCheckpoint, stored_parts
from .safetensors_checkpoint import SafetensorsCheckpoint
from .weights import expected_tensors, shapes_of_matrices


def open_directory(path: Path) -> tuple[ModelConfig, Checkpoint]:
    """Read the configuration and the weights' headers."""
    config, fields = _read_config(path)
    checkpoint = SafetensorsCheckpoint(path)
    form = matrix_format(fields, _source(path))
    if form is None:
        return config, checkpoint
    return config, QuantizedCheckpoint(checkpoint, form, shapes_of_matrices(config))


def open_dummy(path: Path, seed: int) -> tuple[ModelConfig, Checkpoint]:
    """Read the configuration, and have random weights of the same kind."""
    config, fields = _read_config(path)
    form, tensors = matrix_format(fields, _source(path)), expected_tensors(config)
    if form is None:
        return config, DummyCheckpoint(path, tensors, seed)
    matrices = shapes_of_matrices(config)
    parts = stored_parts(form, matrices)
    shapes = {name: part.shape for name, part in parts.items()}
    types = {name: part.types[0] for name, part in parts.items()}
    checkpoint = DummyCheckpoint(path, tensors | shapes, seed, types)
    return config, QuantizedCheckpoint(checkpoint, form, matrices)


def _read_config(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    fields = _read_json(path / "config.json")
    generation_config = _read_json(path / "generation_config.json", {})
    return ModelConfig.from_hf(fields, generation_config, _source(path)), fields


def _source(path: Path) -> str:
    return str(path / "config.json")


def _read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.exists():
        return default
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StartupError(f"{path}: cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise StartupError(f"{path}: not a JSON object.")
    return value
