"""Add to the residual stream, and RMSNorm of the sum: what lies between two parts of a layer.

    residual += x        out = rms_norm(residual)

For sums that no product adds to, such as those over several GPUs or experts.
"""

from torch import Tensor

from .gpu.interpreter import interpreting
from .rms_norm import rms_norm_reference


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add `x` to `residual` in place and normalise the rows of the sum.

    Args:
        x, residual: [num_rows, dim], contiguous; float32, float16 or bfloat16.
        weight: [dim], dtype of x.
    Returns:
        [num_rows, dim], dtype of x: of the sum in float32, which only the residual is rounded of.
    """
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import add_rms_norm as gpu

        return gpu.add_rms_norm(x, residual, weight, eps)
    return add_rms_norm_reference(x, residual, weight, eps)


def add_rms_norm_reference(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    total = x.float() + residual.float()
    residual.copy_(total)
    return rms_norm_reference(total, weight, eps).to(x.dtype)
