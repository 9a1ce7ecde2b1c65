"""Random weights of the right shapes, to measure a model without downloading it."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from zlib import crc32

import torch
from torch import Tensor

from .checkpoint import StoredTensor

# Drawing each of a large model's weights would take minutes. All are cut from one stretch of
# numbers instead; its length is a prime, so that no two rows of a matrix are the same.
_POOL_SIZE = 1_000_003
_STANDARD_DEVIATION = 0.02


class DummyCheckpoint:
    """Normally distributed matrices and norms of one; a seed names them all."""

    readable_types = frozenset({"F32"})

    def __init__(
        self,
        path: Path,
        shapes: Mapping[str, tuple[int, ...]],
        seed: int,
        types: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`types` are of those tensors that are not F32."""
        self.path = path
        self._seed = seed
        self._tensors = {
            name: StoredTensor(path, name, shape, types.get(name, "F32"))
            for name, shape in shapes.items()
        }
        self._pool = torch.empty(_POOL_SIZE).normal_(
            0, _STANDARD_DEVIATION, generator=torch.Generator().manual_seed(seed)
        )

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        return self._tensors

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        shape = torch.Size(self._tensors[name].shape)
        if len(shape) == 1:
            return torch.ones(shape, dtype=dtype)
        # Each tensor begins elsewhere in the stretch, at a place that its name decides. Of whole
        # numbers any bits will do.
        pool = self._pool.to(dtype) if dtype.is_floating_point else self._pool.view(dtype)
        pool = pool.roll(crc32(name.encode()) % _POOL_SIZE)
        return pool.repeat(-(-shape.numel() // _POOL_SIZE))[: shape.numel()].view(shape)

    def content_hash(self) -> bytes:
        return blake2b(b"dummy %d" % self._seed, digest_size=16).digest()
