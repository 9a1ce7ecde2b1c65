"""Linear layer on a GPU: a weight in floating point, in 8 bits, or in 4, and the product with it.

    out = x · weightᵀ

A weight of 8 bits takes activations of 8 bits. Whoever computes them makes them so, where it has
them anyway; for what comes otherwise the product does it first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .gpu.interpreter import interpreting
from .int4_weight import Int4Weight
from .quantize_rows import QuantizedRows, quantize_rows
from .scaled_linear import ScaledWeight, scaled_linear
from .w4a16_linear import w4a16_linear
from .workspace import Workspace


@dataclass(frozen=True, slots=True)
class DeviceWeight:
    """A weight of [out_features, in_features] as a GPU multiplies by it.

    Attributes:
        matrix: the weight itself, or what its numbers stand for.
        out_dtype: what products are answered in; of a floating-point matrix its own, or float32 for
            the sums unrounded, as sampling wants them; of 4 bits that of the activations.
        arrivals: int32 [gpu.tiles.MAX_SPLIT_TILES] of zeros, for products with a quantized matrix;
            weights that are multiplied by one after the other share it.
    """

    matrix: Tensor | ScaledWeight | Int4Weight
    out_dtype: torch.dtype
    arrivals: Tensor | None = None

    @property
    def quantized_dtype(self) -> torch.dtype | None:
        """What its products take their rows in: float8_e4m3fn or int8; None: as they are."""
        return self.matrix.values.dtype if isinstance(self.matrix, ScaledWeight) else None


def device_linear(
    x: Tensor | QuantizedRows, weight: DeviceWeight, workspace: Workspace | None = None
) -> Tensor:
    """Multiply the rows of `x` by a weight.

    Args:
        x: [num_rows, in_features], contiguous: in floating point, or as weight.quantized_dtype.
        workspace: where the result is put; without one it has memory of its own.
    Returns:
        [num_rows, out_features] of weight.out_dtype.
    """
    if workspace is None:
        return _product(x, weight)
    matrix = weight.matrix
    if isinstance(x, Tensor) and x.is_cuda and isinstance(matrix, Tensor):
        out = workspace.take((len(x), len(matrix)), weight.out_dtype)
        if matrix.dtype == weight.out_dtype:
            return torch.mm(x, matrix.T, out=out)
        return torch.mm(x, matrix.T, out_dtype=weight.out_dtype, out=out)
    # The head is what is given a workspace, and is seldom quantized: a copy will do.
    product = _product(x, weight)
    return workspace.take(tuple(product.shape), product.dtype).copy_(product)


def _product(x: Tensor | QuantizedRows, weight: DeviceWeight) -> Tensor:
    matrix, arrivals = weight.matrix, weight.arrivals
    if isinstance(matrix, ScaledWeight):
        rows = x if isinstance(x, QuantizedRows) else quantize_rows(x, matrix.values.dtype)
        return scaled_linear(*rows, matrix, weight.out_dtype, arrivals=arrivals)
    assert isinstance(x, Tensor)
    if isinstance(matrix, Int4Weight):
        assert x.dtype == weight.out_dtype, x.dtype
        return w4a16_linear(x, matrix, arrivals=arrivals)
    if matrix.dtype == weight.out_dtype:
        return F.linear(x, matrix)
    if x.is_cuda:
        # cuBLAS sums in float32 anyway; this leaves out the rounding.
        return torch.mm(x, matrix.T, out_dtype=weight.out_dtype)
    return F.linear(x.to(weight.out_dtype), matrix.to(weight.out_dtype))


def new_arrivals(device: torch.device) -> Tensor | None:
    """Return what the weights of one model share; None where the references multiply."""
    if device.type != "cuda" and not interpreting():
        return None
    # Triton is there where a device is.
    from .gpu.tiles import MAX_SPLIT_TILES

    return torch.zeros(MAX_SPLIT_TILES, dtype=torch.int32, device=device)
