"""How quantized checkpoints store a matrix: in which tensors, and what these stand for.

Weights of 4 bits have a scale for each group of inputs, those of 8 bits one for each output, or one
for all. To the latter activations are quantized as they come, with a scale for each token: scales
that a checkpoint has for them are not used.

Sources: transformers' documentation of quantization; compressed-tensors
(https://github.com/vllm-project/compressed-tensors).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from octavo.kernels.int4_checkpoints import read_awq, read_gptq, read_packed
from octavo.kernels.int4_weight import Int4Weight, int4_weight_bytes
from octavo.kernels.scaled_linear import SCALE_BLOCK_SIZE, ScaledWeight

from .checkpoint import StoredTensor

_FLOATS = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True)
class Part:
    """One of the tensors that are a matrix; of the types that are allowed the first is usual."""

    shape: tuple[int, ...]
    types: tuple[str, ...]

    def admits(self, tensor: StoredTensor) -> bool:
        return tensor.shape == self.shape and tensor.type in self.types


@dataclass(frozen=True, slots=True)
class ScalePart(Part):
    """A scale for each output, or one for all; some write it as a matrix of one column."""

    def admits(self, tensor: StoredTensor) -> bool:
        (out_features,) = self.shape
        shapes = ((), (1,), (1, 1), (out_features,), (out_features, 1))
        return tensor.shape in shapes and tensor.type in self.types


@dataclass(frozen=True, slots=True)
class Int4Format:
    """What AWQ ("gemm"), GPTQ and compressed-tensors write; see int4_checkpoints.py."""

    kind: Literal["awq", "gptq", "gptq_v2", "pack-quantized"]
    group_size: int

    optional_parts = ("g_idx", "weight_shape")

    def parts(self, out_features: int, in_features: int) -> dict[str, Part]:
        """Return the tensors of a matrix, by the last part of their names."""
        packed_out, packed_in = out_features // 8, in_features // 8
        size = in_features if self.group_size == -1 else self.group_size
        num_groups = -(-in_features // size)
        if self.kind == "pack-quantized":
            return {
                "weight_packed": Part((out_features, packed_in), ("I32",)),
                "weight_scale": Part((out_features, num_groups), _FLOATS),
            }
        is_awq = self.kind == "awq"
        qweight = (in_features, packed_out) if is_awq else (packed_in, out_features)
        return {
            "qweight": Part(qweight, ("I32",)),
            "qzeros": Part((num_groups, packed_out), ("I32",)),
            "scales": Part((num_groups, out_features), _FLOATS),
        }

    def read(self, tensors: Mapping[str, Tensor]) -> Int4Weight:
        """Repack a matrix of these parts; raises ValueError for what no kernel multiplies by."""
        if self.kind == "pack-quantized":
            return read_packed(tensors["weight_packed"], tensors["weight_scale"], self.group_size)
        parts = (tensors["qweight"], tensors["qzeros"], tensors["scales"])
        if self.kind == "awq":
            return read_awq(*parts, self.group_size)
        return read_gptq(*parts, tensors.get("g_idx"), self.group_size, self.kind)

    def num_bytes(self, out_features: int, in_features: int) -> int:
        """Return the memory of a matrix that was read."""
        return int4_weight_bytes(out_features, in_features, self.group_size)


@dataclass(frozen=True, slots=True)
class ScaledFormat:
    """Weights of 8 bits under their usual name, scales beside them."""

    kind: Literal["fp8", "int8"]

    optional_parts = ("input_scale",)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float8_e4m3fn if self.kind == "fp8" else torch.int8

    def parts(self, out_features: int, in_features: int) -> dict[str, Part]:
        number = "F8_E4M3" if self.kind == "fp8" else "I8"
        return {
            "weight": Part((out_features, in_features), (number,)),
            "weight_scale": ScalePart((out_features,), _FLOATS),
        }

    def read(self, tensors: Mapping[str, Tensor]) -> ScaledWeight:
        values = tensors["weight"]
        # One for all of a matrix is one for each of its outputs, so that matrices can be stacked.
        scales = tensors["weight_scale"].float().flatten().expand(len(values))
        return ScaledWeight(values, scales.contiguous())

    def num_bytes(self, out_features: int, in_features: int) -> int:
        return out_features * (in_features + torch.float32.itemsize)


@dataclass(frozen=True, slots=True)
class BlockScaledFormat:
    """Weights in fp8 with a scale for each block of 128 outputs and 128 inputs."""

    kind = "fp8 in blocks"
    optional_parts = ("input_scale",)

    def parts(self, out_features: int, in_features: int) -> dict[str, Part]:
        num_blocks = (-(-out_features // SCALE_BLOCK_SIZE), -(-in_features // SCALE_BLOCK_SIZE))
        return {
            "weight": Part((out_features, in_features), ("F8_E4M3",)),
            "weight_scale_inv": Part(num_blocks, _FLOATS),
        }

    def read(self, tensors: Mapping[str, Tensor]) -> ScaledWeight:
        return ScaledWeight(tensors["weight"], tensors["weight_scale_inv"].float().contiguous())

    def num_bytes(self, out_features: int, in_features: int) -> int:
        num_scales = math.prod(self.parts(out_features, in_features)["weight_scale_inv"].shape)
        return out_features * in_features + num_scales * torch.float32.itemsize


MatrixFormat = Int4Format | ScaledFormat | BlockScaledFormat
