"""What is tuned: one shape of one operation, what it is measured on, and what is tried."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic

import torch

from benchmarks.gpu_check.kernel_case import KernelCase
from octavo.kernels.gpu.launch_table import LaunchT, ShapeT
from octavo.kernels.gpu.launches import Launches

# The numbers tried in place of a reasoned one, by the name of the constant.
Choices = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Subject(Generic[ShapeT, LaunchT]):
    """One shape of an operation.

    Attributes:
        cases: its kernel on data; each asks `launches` for this very shape.
        choices: what is tried.
        dtype: of the real numbers among its inputs.
    """

    launches: Launches[ShapeT, LaunchT]
    shape: ShapeT
    cases: Sequence[KernelCase]
    choices: Choices
    dtype: torch.dtype = torch.bfloat16

    def __str__(self) -> str:
        return f"{self.launches.operation} {told(self.shape._asdict())}"

    def candidates(self, reasoned: LaunchT) -> Iterator[LaunchT]:
        """Yield all combinations that the kernel takes, those most like the reasoned one first."""
        choices = {name: [number] for name, number in reasoned._asdict().items()}
        choices |= {name: list(numbers) for name, numbers in self.choices.items()}
        launches = [self.launches.launch._make(each) for each in product(*choices.values())]
        for launch in sorted(launches, key=lambda each: _num_differences(each, reasoned)):
            if launch != reasoned and self.launches.is_possible(self.shape, launch):
                yield launch


def told(numbers: Mapping[str, object]) -> str:
    """Return names and values in a line."""
    return " ".join(f"{name}={value}" for name, value in numbers.items())


def around(*sizes: int, least: int = 16, most: int = 256) -> list[int]:
    """Return powers of 2, with the half and the double of each, within limits."""
    within = [min(size, most) for size in sizes]
    near = (each for size in within for each in (size // 2, size, 2 * size))
    return sorted({each for each in near if least <= each <= most})


def _num_differences(launch: LaunchT, other: LaunchT) -> int:
    ours, others = launch._asdict(), other._asdict()
    return sum(ours[name] != others[name] for name in ours)
