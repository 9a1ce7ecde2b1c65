"""Adapters and rows for tests, and what they make together in double precision."""

import torch
from torch import Tensor

from octavo.kernels.lora import LoraWeights
from octavo.kernels.lora_batch import LoraBatch


class LoraCase:
    """Adapters of ranks 1 to `rank`, rows that have one or none."""

    def __init__(
        self,
        num_rows: int,
        in_features: int,
        slice_sizes: tuple[int, ...],
        rank: int,
        dtype: torch.dtype,
        device: str,
        num_adapters: int = 4,
    ) -> None:
        self.weights = LoraWeights.empty(
            num_adapters, rank, in_features, slice_sizes, dtype, device
        )
        adapter_ids = torch.randint(-1, num_adapters, (num_rows,))
        self.batch = LoraBatch.of(adapter_ids.to(device, torch.int32), num_adapters)
        self.x = torch.randn(num_rows, in_features).to(device, dtype)
        self.out = torch.randn(num_rows, sum(slice_sizes)).to(device, dtype)
        self.expected = self.out.double().cpu()
        for adapter in range(num_adapters):
            own_rank = max(1, rank * (adapter + 1) // num_adapters)
            scale = adapter + 0.5
            downs = [
                torch.randn(own_rank, in_features).div(in_features**0.5).to(dtype)
                for _ in slice_sizes
            ]
            ups = [torch.randn(size, own_rank).div(own_rank**0.5).to(dtype) for size in slice_sizes]
            self.weights.write(adapter, downs, ups, scale)
            self._add(adapter_ids == adapter, downs, ups, scale)

    def _add(self, rows: Tensor, downs: list[Tensor], ups: list[Tensor], scale: float) -> None:
        x = self.x.double().cpu()[rows]
        products = [
            x @ down.double().T @ up.double().T for down, up in zip(downs, ups, strict=True)
        ]
        self.expected[rows] += scale * torch.cat(products, dim=1)

    def check(self) -> None:
        """Compare `out` with what is expected: two roundings on the way, and that of the result."""
        eps = torch.finfo(self.out.dtype).eps
        torch.testing.assert_close(
            self.out.double().cpu(), self.expected, rtol=2 * eps, atol=16 * eps + 1e-5
        )
