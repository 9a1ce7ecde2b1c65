"""How a GPU multiplies matrices: what the launches of kernels with products depend on."""

from enum import Enum, auto
from functools import cache

import torch


class TensorCores(Enum):
    """Who multiplies, and where the sums are meanwhile.

    Attributes:
        WARP: each warp, in its registers: Ampere, Ada, and Blackwell's small GPUs. A program
            gets 99 KiB of shared memory on most, 163 on an A100.
        WARP_GROUP: four warps at once, in their registers: Hopper. A program gets 227 KiB.
        TENSOR_MEMORY: one thread for all, in a memory made for it: Blackwell's large GPUs. 227 KiB.
    """

    WARP = auto()
    WARP_GROUP = auto()
    TENSOR_MEMORY = auto()

    @staticmethod
    def of(capability: int) -> "TensorCores":
        """Return those that Triton uses for a compute capability, such as 90."""
        by_major = {9: TensorCores.WARP_GROUP, 10: TensorCores.TENSOR_MEMORY}
        return by_major.get(capability // 10, TensorCores.WARP)


@cache
def tensor_cores(device: torch.device) -> TensorCores:
    """Return a device's own; in Triton's interpreter, on a CPU, they are taken to be Hopper's."""
    if device.type != "cuda":
        return TensorCores.WARP_GROUP
    major, minor = torch.cuda.get_device_capability(device)
    return TensorCores.of(10 * major + minor)
