"""Linear layer: activations times a weight that was repacked once, when the model was loaded.

out = x · weightᵀ
"""

from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor
from torch.nn import functional as F


class Layout(Enum):
    """How a packed weight lies in memory, and so which code multiplies by it."""

    PLAIN = auto()


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight in the layout of the fastest kernel that this machine has for it."""

    data: Tensor
    layout: Layout
    out_features: int
    in_features: int
    out_dtype: torch.dtype


def pack_weight(weight: Tensor, out_dtype: torch.dtype | None = None) -> PackedWeight:
    """Repack `weight`, [out_features, in_features] in float32 or bfloat16, for `linear`.

    `out_dtype` is the dtype that `linear` answers in: that of the weight unless told otherwise.
    float32 for a bfloat16 weight gives the unrounded sums, which the sampler wants.
    """
    out_features, in_features = weight.shape
    return PackedWeight(weight, Layout.PLAIN, out_features, in_features, out_dtype or weight.dtype)


def linear(x: Tensor, packed: PackedWeight) -> Tensor:
    """Multiply `x`, [num_rows, in_features] in the dtype of the weight: [num_rows, out_features].

    The products are summed in float32.
    """
    return linear_reference(x, packed.data, packed.out_dtype)


def linear_reference(x: Tensor, weight: Tensor, out_dtype: torch.dtype) -> Tensor:
    if out_dtype == weight.dtype:
        return F.linear(x, weight)
    return F.linear(x.to(out_dtype), weight.to(out_dtype))
