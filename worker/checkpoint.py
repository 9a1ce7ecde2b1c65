"""What loading a model needs of the place its weights are stored in."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

_HEAD_BYTES = 1 << 20
_NUM_SAMPLES = 256
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as it is stored; `name` and `type` as the file spells them."""

    path: Path
    name: str
    shape: tuple[int, ...]
    type: str


class Checkpoint(Protocol):
    """Stored weights under the names of a Hugging Face checkpoint.

    Attributes:
        path: named in errors.
        tensors: Hugging Face name → stored tensor; opening reads headers only.
        readable_types: the types that `read` understands.
    """

    @property
    def path(self) -> Path: ...

    @property
    def tensors(self) -> Mapping[str, StoredTensor]: ...

    @property
    def readable_types(self) -> frozenset[str]: ...

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """Return a tensor's values as `dtype`, in its stored shape."""
        ...

    def content_hash(self) -> bytes:
        """Name the content, whatever the files are called."""
        ...


def sampled_file_hash(path: Path) -> bytes:
    """Return 16 bytes that name a file's content at the price of 2 MiB read.

    Hashed are its size, its first MiB (the header, mostly) and 256 pages spread evenly over the
    rest. Two versions of a model differ in all of them; one flipped bit is not what this is for.
    """
    size = path.stat().st_size
    digest = blake2b(size.to_bytes(8, "little"), digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(_HEAD_BYTES))
        for i in range(_NUM_SAMPLES):
            digest.update(os.pread(file.fileno(), _SAMPLE_BYTES, size * i // _NUM_SAMPLES))
    return digest.digest()
