"""Linear layer of which only the largest output is wanted: the head, for tokens drawn greedily.

    out[t] = argmax over i of Σ x[t, k] · weight[i, k]

The outputs themselves, which for a head are megabytes, are never written.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .cpu import library
from .device_linear import DeviceWeight
from .linear import PackedWeight, linear


class LinearArgmax:
    """Says which output of `linear` by one weight is the largest, the first of equal ones."""

    def __init__(self, packed: PackedWeight | DeviceWeight) -> None:
        """`packed` is not gated, and has float32 outputs."""
        assert packed.out_dtype == torch.float32
        self._packed = packed
        self._run = None
        if isinstance(packed, PackedWeight):
            assert not packed.is_gated
            cpu = library.load_for(packed.in_dtype)
            self._run = cpu.linear_argmax if cpu and packed.layout.is_native else None
        self._last: tuple[Tensor, NDArray[np.int64], tuple[object, ...]] | None = None

    def of(self, x: Tensor) -> NDArray[np.int64]:
        """Return it for each row; the next call gives the answer's memory away.

        Args:
            x: [num_rows, in_features], contiguous, of packed.in_dtype.
        Returns:
            int64 [num_rows]; -1 for a row that has a NaN or whose largest output is not finite.
        """
        if self._run is None:
            largest: NDArray[np.int64] = argmax_reference(linear(x, self._packed)).cpu().numpy()
            return largest
        # Steps that differ in numbers alone come as the same tensor, overwritten.
        if self._last is None or self._last[0] is not x:
            self._last = self._bind(x)
        _, out, arguments = self._last
        self._run(*arguments)
        return out

    def _bind(self, x: Tensor) -> tuple[Tensor, NDArray[np.int64], tuple[object, ...]]:
        """Return the tensor, where the answer goes, and the arguments that point into both."""
        packed = self._packed
        assert isinstance(packed, PackedWeight)
        assert x.is_contiguous() and x.dtype == packed.in_dtype, x.dtype
        assert x.dim() == 2 and x.shape[1] == packed.in_features, x.shape
        out = np.empty(len(x), np.int64)
        return x, out, (packed.descriptor, x.data_ptr(), out.ctypes.data, len(x))


def argmax_reference(outputs: Tensor) -> Tensor:
    """The same of outputs that are there."""
    largest = outputs.amax(dim=-1)  # NaN if the row has one.
    return outputs.argmax(dim=-1).masked_fill(~largest.isfinite(), -1)
