"""A checkpoint as Hugging Face keeps it: a directory with model.safetensors, whole or in shards."""

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from octavo.startup import StartupError

from .checkpoint import StoredTensor, sampled_file_hash

_FILE_NAME = "model.safetensors"
_INDEX_NAME = "model.safetensors.index.json"


class SafetensorsCheckpoint:
    """An opened directory of safetensors files, memory-mapped."""

    readable_types = frozenset({"F32", "F16", "BF16"})

    def __init__(self, path: Path) -> None:
        """Read the headers; raises StartupError if a file is missing or cut."""
        self.path = path
        self._files = {shard: _open(shard) for shard in _shard_paths(path)}
        self._tensors: dict[str, StoredTensor] = {}
        for shard, file in self._files.items():
            for name in file.keys():
                piece = file.get_slice(name)
                self._tensors[name] = StoredTensor(
                    shard, name, tuple(piece.get_shape()), piece.get_dtype()
                )

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        return self._tensors

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        tensor: Tensor = self._files[self._tensors[name].path].get_tensor(name)
        return tensor.to(dtype)

    def content_hash(self) -> bytes:
        hashes = sorted(sampled_file_hash(path) for path in self._files)
        return blake2b(b"".join(hashes), digest_size=16).digest()


def _shard_paths(directory: Path) -> list[Path]:
    """Return the safetensors files of a directory: the one, or those its index names."""
    if (whole := directory / _FILE_NAME).exists():
        return [whole]
    index = directory / _INDEX_NAME
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(weight_map.values()))
    except FileNotFoundError as error:
        raise StartupError(
            f"{directory}: holds neither {_FILE_NAME} nor {_INDEX_NAME}."
            " Other formats (.bin, .pt) are not read: convert them to safetensors."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StartupError(f"{index}: not a safetensors index: {error!r}.") from error
    for name in names:
        if not (directory / name).is_file():
            raise StartupError(f"{directory / name}: named by {_INDEX_NAME}, but missing.")
    return [directory / name for name in names]


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise StartupError(
            f"{path}: not a whole safetensors file: {error} (the file has"
            f" {path.stat().st_size} bytes). Download it again."
        ) from error
