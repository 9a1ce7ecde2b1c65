"""A checkpoint whose matrices are quantized already, under the names that they have elsewhere."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from octavo.kernels.int4_weight import Int4Weight
from octavo.kernels.scaled_linear import ScaledWeight
from octavo.startup import StartupError

from .checkpoint import Checkpoint, StoredTensor
from .quantized_formats import MatrixFormat, Part

_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
}


class QuantizedCheckpoint:
    """Another checkpoint, in which several tensors are a matrix.

    `read` brings what a matrix stands for, `read_quantized` its numbers.
    """

    def __init__(
        self, stored: Checkpoint, form: MatrixFormat, matrices: Mapping[str, tuple[int, ...]]
    ) -> None:
        """Check that what `form` wants is there.

        Args:
            matrices: name and shape of those that are quantized.
        Raises:
            StartupError: a tensor is missing, or has another shape or type.
        """
        self.path: Path = stored.path
        self.form = form
        self.readable_types = stored.readable_types | {form.kind}
        self._stored = stored
        self._matrices = matrices
        self._tensors = dict(stored.tensors)
        for name in matrices:
            for suffix in form.optional_parts:
                self._tensors.pop(_part(name, suffix), None)
        for name, expected in stored_parts(form, matrices).items():
            self._check(name, expected)
            del self._tensors[name]
        for name, shape in matrices.items():
            self._tensors[name] = StoredTensor(self.path, name, shape, form.kind)

    @property
    def tensors(self) -> Mapping[str, StoredTensor]:
        return self._tensors

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        if name not in self._matrices:
            return self._stored.read(name, dtype)
        return self.read_quantized(name, torch.device("cpu")).dequantized().to(dtype)

    def read_quantized(self, name: str, device: torch.device) -> Int4Weight | ScaledWeight:
        """Return a matrix in the numbers that it is stored in, repacked on `device`."""
        parts = {}
        for suffix in (*self.form.parts(*self._matrices[name]), *self.form.optional_parts):
            tensor = self._stored.tensors.get(_part(name, suffix))
            if tensor is not None and tensor.type in _DTYPES:
                dtype = _DTYPES[tensor.type]
                parts[suffix] = self._stored.read(_part(name, suffix), dtype).to(device)
        try:
            return self.form.read(parts)
        except ValueError as error:
            raise StartupError(f"{self.path}: {name}: {error}.") from error

    def content_hash(self) -> bytes:
        stored = self._stored.content_hash()
        return blake2b(stored + repr(self.form).encode(), digest_size=16).digest()

    def _check(self, name: str, expected: Part) -> None:
        tensor = self._stored.tensors.get(name)
        if tensor is None:
            raise StartupError(
                f"{self.path}: tensor {name} is missing, which config.json's quantization_config"
                f" ({self.form.kind}) says that there is."
            )
        if not expected.admits(tensor):
            raise StartupError(
                f"{tensor.path}: tensor {name} has the shape {tensor.shape} and the type"
                f" {tensor.type}; {self.form.kind} has {expected.shape} and"
                f" {' or '.join(expected.types)}."
            )


def stored_parts(form: MatrixFormat, matrices: Mapping[str, tuple[int, ...]]) -> dict[str, Part]:
    """Return the tensors, under their full names, that matrices of these shapes are stored as."""
    return {
        _part(name, suffix): part
        for name, shape in matrices.items()
        for suffix, part in form.parts(*shape).items()
    }


def _part(matrix: str, suffix: str) -> str:
    return matrix.removesuffix("weight") + suffix
