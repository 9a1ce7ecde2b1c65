"""Memory that is used again step after step, so that the system need not find and clear it anew."""

import torch
from torch import Tensor


class Workspace:
    """One buffer, as large as the largest tensor that was asked for."""

    def __init__(self, device: torch.device | None = None) -> None:
        """`device` is the one that has the buffer; None: the CPU."""
        self._memory = torch.empty(0, dtype=torch.int8, device=device)
        self._last = self._memory

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a contiguous tensor of any content, whose memory the next call gives away."""
        # Most steps ask for what the one before did.
        if self._last.shape == shape and self._last.dtype == dtype:
            return self._last
        num_bytes = torch.Size(shape).numel() * dtype.itemsize
        if num_bytes > len(self._memory):
            self._memory = torch.empty(num_bytes, dtype=torch.int8, device=self._memory.device)
        self._last = self._memory[:num_bytes].view(dtype).view(shape)
        return self._last
