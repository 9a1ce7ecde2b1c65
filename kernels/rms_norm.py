"""RMSNorm: scales each row to unit root mean square.

    out = x / sqrt(mean(x²) + eps) · weight

Source: Zhang and Sennrich, Root Mean Square Layer Normalization (2019).
"""

import torch
from torch import Tensor

from .cpu import library
from .gpu.interpreter import interpreting


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalise the rows of `x`.

    Args:
        x: [num_rows, dim], contiguous; float32, bfloat16 or float16.
        weight: [dim], dtype of x.
    Returns:
        [num_rows, dim], dtype of x, computed in float32 and rounded once.
    """
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import rms_norm as gpu

        return gpu.rms_norm(x, weight, eps)
    cpu = library.load_for(x.dtype)
    if cpu is None:
        return rms_norm_reference(x, weight, eps)
    _check(x, weight)
    out = torch.empty_like(x)
    cpu.rms_norm(
        x.data_ptr(), weight.data_ptr(), out.data_ptr(), *x.shape, eps, library.DTYPES[x.dtype]
    )
    return out


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    inverse_rms = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * inverse_rms * weight.float()).to(x.dtype)


def _check(x: Tensor, weight: Tensor) -> None:
    assert x.dim() == 2 and x.is_contiguous(), x.shape
    assert weight.shape == x.shape[1:] and weight.is_contiguous(), weight.shape
    assert weight.dtype == x.dtype, weight.dtype
