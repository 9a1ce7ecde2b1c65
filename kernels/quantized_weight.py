"""Weights as small whole numbers that share scales.

    weight[i, k] ≈ scales[i, g] * values[i, k] + minimums[i, g],   g the group that k is in

Sources: LLM.int8() (Dettmers et al., 2022) for one scale for each output; for groups of 32 GGUF's
Q8_0, Q4_0 and Q4_1 (https://github.com/ggml-org/ggml).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .linear import Layout

GROUP_SIZE = 32

_LARGEST_INT8 = 127
_LARGEST_INT4 = 15


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """A weight of [out_features, in_features].

    Attributes:
        layout: what the kernels call its kind. INT8 has one group; those of Q8 and Q4 have
            GROUP_SIZE numbers, the last one maybe less.
        values: [out_features, in_features], int8, with Q4 uint8 below 16.
        scales: [out_features, num_groups], with INT8 float32, else float16.
        minimums: of Q4, like the scales.
    """

    layout: Layout
    values: Tensor
    scales: Tensor
    minimums: Tensor | None = None

    def dequantized(self) -> Tensor:
        """Return what the numbers stand for, float32 [out_features, in_features]."""
        weight = self.values.float() * self._spread(self.scales)
        return weight if self.minimums is None else weight.add_(self._spread(self.minimums))

    def with_rows(self, reorder: Callable[[Tensor], Tensor]) -> "QuantizedWeight":
        """Return the weight with its rows as `reorder` puts those of a matrix."""
        minimums = None if self.minimums is None else reorder(self.minimums)
        return QuantizedWeight(self.layout, reorder(self.values), reorder(self.scales), minimums)

    def _spread(self, each: Tensor) -> Tensor:
        if self.layout is Layout.INT8:
            return each
        return each.float().repeat_interleave(GROUP_SIZE, dim=1)[:, : self.values.shape[1]]


def stack_quantized(parts: Sequence[QuantizedWeight]) -> QuantizedWeight:
    """Put the rows of weights of one kind below each other."""
    minimums = [part.minimums for part in parts if part.minimums is not None]
    return QuantizedWeight(
        parts[0].layout,
        torch.cat([part.values for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat(minimums) if minimums else None,
    )


def quantize_int8(weight: Tensor) -> QuantizedWeight:
    """8 bits, one scale for each output feature: its largest number becomes 127 or -127."""
    weight = weight.float()
    scales = weight.abs().amax(dim=1, keepdim=True) / _LARGEST_INT8
    values = (weight / scales.masked_fill(scales == 0, 1)).round_()
    return QuantizedWeight(Layout.INT8, values.to(torch.int8), scales)


def quantize_int4(weight: Tensor) -> QuantizedWeight:
    """4 bits in groups of 32: a group's smallest number becomes 0, its largest 15."""
    out_features, in_features = weight.shape
    weight = weight.float()
    if extra := -in_features % GROUP_SIZE:
        # Copies change no group's smallest and largest number.
        weight = F.pad(weight[None], (0, extra), mode="replicate")[0]
    groups = weight.view(out_features, -1, GROUP_SIZE)
    # A fifth of the time of aminmax.
    smallest, largest = groups.amin(dim=2), groups.amax(dim=2)
    scales, minimums = ((largest - smallest) / _LARGEST_INT4).half(), smallest.half()
    # Counted in the steps that are kept; a group whose numbers are all the same has none.
    steps = scales.float().masked_fill_(scales == 0, 1)[:, :, None]
    numbers = (groups - minimums.float()[:, :, None]).div_(steps).round_().clamp_(0, _LARGEST_INT4)
    values = numbers.to(torch.uint8).view(out_features, -1)[:, :in_features]
    return QuantizedWeight(Layout.Q4, values, scales, minimums)
