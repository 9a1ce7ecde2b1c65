"""A model's matrices as linear layers on a GPU take them."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from octavo.kernels.device_linear import DeviceWeight, new_arrivals
from octavo.kernels.quantize_rows import quantize_rows
from octavo.kernels.scaled_linear import ScaledWeight

from .checkpoint import Checkpoint
from .quantization import HEADS
from .settings import Quantization

_QUANTIZED_DTYPES: Mapping[Quantization | None, torch.dtype] = {
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
}


class DeviceMatrixReader:
    """Reads a checkpoint's matrices onto a device, as `--quantization` says; heads as they are."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        quantization: Quantization | None,
        device: torch.device,
    ) -> None:
        """`dtype` is that of the activations, and of what is not quantized."""
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._quantized_dtype = _QUANTIZED_DTYPES.get(quantization)
        self._device = device

    def read(self, names: Sequence[str], out_dtype: torch.dtype | None = None) -> DeviceWeight:
        """Return matrices, one below the other, as one weight that answers in `out_dtype`."""
        stacked, quantized_dtype = self._stacked(names), self._quantized(names)
        if quantized_dtype is None:
            return DeviceWeight(stacked, out_dtype or self._dtype)
        matrix = ScaledWeight(*quantize_rows(stacked, quantized_dtype))
        return DeviceWeight(matrix, out_dtype or self._dtype, self._arrivals)

    def num_bytes(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Return the memory that `read` takes for the matrices of these names and shapes."""
        num_weights = sum(math.prod(shape) for shape in shapes.values())
        quantized_dtype = self._quantized(tuple(shapes))
        if quantized_dtype is None:
            return num_weights * self._dtype.itemsize
        num_scales = sum(shape[0] for shape in shapes.values())
        return num_weights * quantized_dtype.itemsize + num_scales * torch.float32.itemsize

    @cached_property
    def _arrivals(self) -> Tensor | None:
        return new_arrivals(self._device)

    def _quantized(self, names: Sequence[str]) -> torch.dtype | None:
        return None if names[0] in HEADS else self._quantized_dtype

    def _stacked(self, names: Sequence[str]) -> Tensor:
        parts = [self._checkpoint.read(name, self._dtype).to(self._device) for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
