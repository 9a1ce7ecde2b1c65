"""What a GPU is to a kernel: who multiplies its matrices, and the memory that a program shares."""

from enum import Enum, auto
from functools import cache
from typing import NamedTuple

import torch

# What a program may take of a multiprocessor, by capability (CUDA C++ Programming Guide, "Technical
# Specifications per Compute Capability").
_SHARED_KIB = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99}
# Nobody has less since Ampere.
_LEAST_SHARED_KIB = 99


class TensorCores(Enum):
    """Who multiplies, and where the sums are meanwhile.

    Attributes:
        WARP: each warp, in its registers: Ampere, Ada, and Blackwell's small GPUs.
        WARP_GROUP: four warps at once, in their registers: Hopper.
        TENSOR_MEMORY: one thread for all, in a memory made for it: Blackwell's large GPUs.
    """

    WARP = auto()
    WARP_GROUP = auto()
    TENSOR_MEMORY = auto()


class Architecture(NamedTuple):
    """What the launches of kernels with products depend on.

    Attributes:
        shared_kib: most shared memory of a program.
    """

    tensor_cores: TensorCores
    shared_kib: int

    @staticmethod
    def of(capability: int) -> "Architecture":
        """Return that of a compute capability, such as 90."""
        by_major = {9: TensorCores.WARP_GROUP, 10: TensorCores.TENSOR_MEMORY}
        return Architecture(
            by_major.get(capability // 10, TensorCores.WARP),
            _SHARED_KIB.get(capability, _LEAST_SHARED_KIB),
        )


# Of an A100; of an RTX 4090 or an L40S, and the RTX 5090; of an H200; of a B200.
ARCHITECTURES = tuple(map(Architecture.of, (80, 89, 90, 100)))


def capability_of(device: torch.device) -> int:
    """Return a GPU's compute capability; Triton's interpreter is taken to be a Hopper."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@cache
def architecture_of(device: torch.device) -> Architecture:
    return Architecture.of(capability_of(device))
