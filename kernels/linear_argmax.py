"""Linear layer of which only the largest output is wanted: the head, for tokens drawn greedily.

    out[t] = argmax over i of Σ x[t, k] · weight[i, k]

The outputs themselves, which for a head are megabytes, are never written.
"""

import torch
from torch import Tensor

from .cpu import library
from .device_linear import DeviceWeight
from .linear import PackedWeight, linear


def linear_argmax(x: Tensor, packed: PackedWeight | DeviceWeight) -> Tensor:
    """Say which output of `linear(x, packed)` is the largest in each row, the first of equal ones.

    Args:
        x: [num_rows, in_features], contiguous, of packed.in_dtype.
        packed: not gated, and with float32 outputs.
    Returns:
        int64 [num_rows]; -1 for a row that has a NaN or whose largest output is not finite.
    """
    assert packed.out_dtype == torch.float32
    if isinstance(packed, DeviceWeight):
        return argmax_reference(linear(x, packed))
    assert not packed.is_gated
    cpu = library.load_for(packed.in_dtype)
    if cpu is None or not packed.layout.is_native:
        return argmax_reference(linear(x, packed))
    assert x.is_contiguous() and x.dtype == packed.in_dtype, x.dtype
    assert x.dim() == 2 and x.shape[1] == packed.in_features, x.shape
    out = torch.empty(len(x), dtype=torch.int64)
    cpu.linear_argmax(packed.descriptor, x.data_ptr(), out.data_ptr(), len(x))
    return out


def argmax_reference(outputs: Tensor) -> Tensor:
    """The same of outputs that are there."""
    largest = outputs.amax(dim=-1)  # NaN if the row has one.
    return outputs.argmax(dim=-1).masked_fill(~largest.isfinite(), -1)
