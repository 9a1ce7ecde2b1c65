"""The numbers that a CPU keeps a model's matrices in and multiplies, as `--quantization` says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from octavo.kernels.linear import Layout, PackedWeight, pack_weight
from octavo.kernels.quantized_linear import pack_quantized_weight, packed_bytes
from octavo.kernels.quantized_weight import quantize_int4, quantize_int8, stack_quantized

from .checkpoint import Checkpoint
from .gguf_checkpoint import GGUFCheckpoint
from .huge_pages import HugePages
from .settings import Quantization

# Tied or not. In 4 bits SmolLM2-135M's head alone would cost 4.9 % of perplexity.
HEADS = ("lm_head.weight", "model.embed_tokens.weight")

_QUANTIZE = {Layout.INT8: quantize_int8, Layout.Q4: quantize_int4}


class MatrixReader:
    """Reads a checkpoint's matrices as linear layers take them."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        quantization: Quantization | None,
    ) -> None:
        """`dtype` is that of the activations, and of what is not quantized."""
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._quantization = quantization
        self._pages = HugePages()

    def read(
        self,
        names: Sequence[str],
        out_dtype: torch.dtype | None = None,
        *,
        is_gated: bool = False,
    ) -> PackedWeight:
        """Return matrices, one below the other, as one weight that answers in `out_dtype`.

        Of two matrices the first may be the gate of the second, see `pack_weight`.
        """
        packed = self._packed(names, out_dtype, is_gated)
        if not packed.layout.is_native:
            return packed
        return replace(packed, data=self._pages.moved(packed.data))

    def num_bytes(
        self, shapes: Mapping[str, tuple[int, ...]], out_dtype: torch.dtype | None = None
    ) -> int:
        """Return the memory that `read` takes for the matrices of these names and shapes."""
        layout = self._layout(tuple(shapes))
        if layout is None:
            return sum(math.prod(shape) for shape in shapes.values()) * self._dtype.itemsize
        return sum(packed_bytes(layout, shape, self._dtype, out_dtype) for shape in shapes.values())

    def _packed(
        self, names: Sequence[str], out_dtype: torch.dtype | None, is_gated: bool
    ) -> PackedWeight:
        layout = self._layout(names)
        if layout is None:
            parts = [self._checkpoint.read(name, self._dtype) for name in names]
            weight = parts[0] if len(parts) == 1 else torch.cat(parts)
            return pack_weight(weight, out_dtype, is_gated=is_gated)
        if self._quantization == "gguf":
            assert isinstance(self._checkpoint, GGUFCheckpoint)
            quantized = [self._checkpoint.read_quantized(name) for name in names]
        else:
            quantize = _QUANTIZE[layout]
            quantized = [quantize(self._checkpoint.read(name, torch.float32)) for name in names]
        return pack_quantized_weight(
            stack_quantized(quantized), self._dtype, out_dtype, is_gated=is_gated
        )

    def _layout(self, names: Sequence[str]) -> Layout | None:
        """Return how the matrices are quantized; None: not at all.

        A GGUF file's types that no kernel multiplies by, and different ones that lie in one
        weight, become floating point.
        """
        match self._quantization:
            case "int8":
                return Layout.INT8
            case "int4":
                return Layout.INT8 if names[0] in HEADS else Layout.Q4
            case "gguf":
                assert isinstance(self._checkpoint, GGUFCheckpoint)
                layouts = {self._checkpoint.quantized_layout(name) for name in names}
                return layouts.pop() if len(layouts) == 1 else None
            case _:
                return None
