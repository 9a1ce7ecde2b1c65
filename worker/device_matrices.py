"""A model's matrices as linear layers on a GPU take them."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from octavo.kernels.device_linear import DeviceWeight, new_arrivals
from octavo.kernels.int4_weight import Int4Weight, stack_int4_weights
from octavo.kernels.quantize_rows import quantize_rows
from octavo.kernels.scaled_linear import ScaledWeight
from octavo.startup import StartupError

from .checkpoint import Checkpoint
from .devices import GPUS_WITH_FP8, has_fp8
from .quantization import HEADS
from .quantized_checkpoint import QuantizedCheckpoint
from .quantized_formats import BlockScaledFormat, Int4Format, MatrixFormat, ScaledFormat
from .settings import Quantization

# Those that GPUs have kernels for, see check_quantization.
_FORMS: Mapping[Quantization, ScaledFormat] = {
    "fp8": ScaledFormat("fp8"),
    "int8": ScaledFormat("int8"),
}


class DeviceMatrixReader:
    """Reads a checkpoint's matrices onto a device; heads as they are.

    The others are quantized as `--quantization` says, else as the checkpoint has them.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        quantization: Quantization | None,
        device: torch.device,
    ) -> None:
        """`dtype` is that of the activations, and of what is not quantized.

        Raises StartupError where the device does not multiply by what the checkpoint has.
        """
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._device = device
        self._form: MatrixFormat | None = None
        self._stored: QuantizedCheckpoint | None = None
        if quantization is not None:
            self._form = _FORMS[quantization]
        elif isinstance(checkpoint, QuantizedCheckpoint):
            _check(checkpoint, dtype, device)
            self._form, self._stored = checkpoint.form, checkpoint

    def read(self, names: Sequence[str], out_dtype: torch.dtype | None = None) -> DeviceWeight:
        """Return matrices, one below the other, as one weight that answers in `out_dtype`."""
        return DeviceWeight(self._matrix(names), out_dtype or self._dtype, self._arrivals)

    def num_bytes(
        self, shapes: Mapping[str, tuple[int, ...]], _out_dtype: torch.dtype | None = None
    ) -> int:
        """Return the memory that `read` takes for the matrices of these names and shapes.

        It is the same whatever they answer in.
        """
        if self._form is None or shapes.keys() & set(HEADS):
            return sum(math.prod(shape) for shape in shapes.values()) * self._dtype.itemsize
        return sum(self._form.num_bytes(*shape) for shape in shapes.values())

    @cached_property
    def _arrivals(self) -> Tensor | None:
        return new_arrivals(self._device)

    def _matrix(self, names: Sequence[str]) -> Tensor | ScaledWeight | Int4Weight:
        if self._form is None or names[0] in HEADS:
            return self._floats(names)
        if self._stored is None:
            assert isinstance(self._form, ScaledFormat)
            return ScaledWeight(*quantize_rows(self._floats(names), self._form.dtype))
        parts = [self._stored.read_quantized(name, self._device) for name in names]
        try:
            return _stacked(parts)
        except ValueError as error:
            raise StartupError(f"{self._stored.path}: {' and '.join(names)}: {error}.") from error

    def _floats(self, names: Sequence[str]) -> Tensor:
        parts = [self._checkpoint.read(name, self._dtype).to(self._device) for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _check(checkpoint: QuantizedCheckpoint, dtype: torch.dtype, device: torch.device) -> None:
    if isinstance(checkpoint.form, Int4Format) and dtype == torch.float32:
        raise StartupError(
            f"{checkpoint.path}: has weights of 4 bits, which a GPU multiplies by activations of"
            " 16, not by --dtype float32. Give bfloat16 or float16, or leave the flag out."
        )
    if isinstance(checkpoint.form, BlockScaledFormat):
        raise StartupError(
            f"{checkpoint.path}: has weights in fp8 with scales of blocks, and there are no"
            " activations like that. Give --quantization fp8 or int8 for scales of outputs."
        )
    if checkpoint.form.kind == "fp8" and not has_fp8(device):
        raise StartupError(
            f"{checkpoint.path}: has weights in fp8, which want {GPUS_WITH_FP8}."
            " Give --quantization int8."
        )


def _stacked(parts: Sequence[ScaledWeight | Int4Weight]) -> ScaledWeight | Int4Weight:
    """Put weights of one kind below each other."""
    scaled = [part for part in parts if isinstance(part, ScaledWeight)]
    if scaled:
        values = torch.cat([part.values.view(torch.uint8) for part in scaled])
        scales = torch.cat([part.scales for part in scaled])
        return ScaledWeight(values.view(scaled[0].values.dtype), scales)
    return stack_int4_weights([part for part in parts if isinstance(part, Int4Weight)])
