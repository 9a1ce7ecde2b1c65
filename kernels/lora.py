"""Low-rank adapters: what each row's own adapter adds to a linear layer, in a batch of many.

    out[t, i] += scales[a] * Σ over r of (Σ over k of x[t, k] * down[a, s, r, k]) * up[a, i, r]

with a the adapter of row t, and s the slice that output i is in: q, k and v of one linear layer
have each their own.

Sources: LoRA (Hu et al., 2021), Punica (Chen et al., 2023).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from .gpu.interpreter import interpreting
from .lora_batch import LoraBatch

_RANK_STEP = 16


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """Room for the adapters of a linear layer, all of one rank; those of a lower one end in zeros.

    Attributes:
        down: [num_adapters, num_slices, rank, in_features], the paper's A. The rank is a multiple
            of 16, so that what a thread loads is aligned.
        up: [num_adapters, out_features, rank], the paper's B.
        scales: float32 [num_adapters], the paper's alpha by the adapter's own rank.
        slice_sizes: outputs of each slice.
        slice_starts: int32 [num_slices + 1], the first output of each slice, and their number.
    """

    down: Tensor
    up: Tensor
    scales: Tensor
    slice_sizes: tuple[int, ...]
    slice_starts: Tensor

    @classmethod
    def empty(
        cls,
        num_adapters: int,
        rank: int,
        in_features: int,
        slice_sizes: Sequence[int],
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> Self:
        """Return room for adapters up to a rank; they add nothing yet."""
        rank += -rank % _RANK_STEP
        down = torch.zeros(
            num_adapters, len(slice_sizes), rank, in_features, dtype=dtype, device=device
        )
        up = torch.zeros(num_adapters, sum(slice_sizes), rank, dtype=dtype, device=device)
        scales = torch.zeros(num_adapters, device=device)
        starts = torch.tensor([0, *slice_sizes]).cumsum(0)
        return cls(down, up, scales, tuple(slice_sizes), starts.to(device, torch.int32))

    def write(
        self, adapter: int, downs: Sequence[Tensor], ups: Sequence[Tensor], scale: float
    ) -> None:
        """Put an adapter in the place of another.

        Args:
            downs: of each slice [own rank, in_features].
            ups: of each slice [outputs of the slice, own rank].
        Raises:
            ValueError: the adapter's rank is higher than what there is room for.
        """
        own_rank, rank = len(downs[0]), self.up.shape[2]
        if own_rank > rank:
            raise ValueError(
                f"the adapter has rank {own_rank}, more than the {rank} there is room for"
            )
        self.down[adapter].zero_()[:, :own_rank] = torch.stack(list(downs))
        self.up[adapter].zero_()[:, :own_rank] = torch.cat(list(ups))
        self.scales[adapter] = scale


def add_lora(
    out: Tensor, x: Tensor, weights: LoraWeights, batch: LoraBatch, arrivals: Tensor | None = None
) -> None:
    """Add to `out` what the adapters of its rows make of `x`; rows without one stay as they are.

    Sums are float32; between the two products they are rounded to the dtype of `x`.

    Args:
        out: [num_rows, out_features], contiguous, dtype of x.
        x: [num_rows, in_features], contiguous; float16, bfloat16 or float32, as the weights are.
        arrivals: int32 [gpu.tiles.MAX_SPLIT_TILES] of zeros, left as they were, for launches one
            after the other; without it a launch that needs some makes them.
    """
    assert x.is_contiguous() and out.is_contiguous()
    assert x.shape == (len(batch.rows), weights.down.shape[3]), x.shape
    assert out.shape == (len(batch.rows), weights.up.shape[1]), out.shape
    assert weights.up.shape[2] % _RANK_STEP == 0, weights.up.shape
    assert x.dtype == out.dtype == weights.down.dtype == weights.up.dtype, x.dtype
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import lora as gpu

        gpu.add_lora(out, x, weights, batch, arrivals)
    else:
        add_lora_reference(out, x, weights, batch)


def add_lora_reference(out: Tensor, x: Tensor, weights: LoraWeights, batch: LoraBatch) -> None:
    for adapter, scale in enumerate(weights.scales.tolist()):
        rows = (batch.adapter_ids == adapter).nonzero()[:, 0]
        first = 0
        for down, size in zip(weights.down[adapter].float(), weights.slice_sizes, strict=True):
            outputs = slice(first, first + size)
            hidden = (x[rows].float() @ down.T).to(x.dtype).float()
            added = scale * (hidden @ weights.up[adapter, outputs].float().T)
            out[rows, outputs] = (out[rows, outputs].float() + added).to(out.dtype)
            first += size
