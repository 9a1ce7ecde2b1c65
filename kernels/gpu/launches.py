"""How an operation is launched: as it was measured on the GPU it runs on, else as it was reasoned.

Operations that memory alone limits, one pass over rows of numbers, have no table: whichever launch
keeps enough loads under way takes the same time. Those of products have one: tiles, warps and
stages decide what they reach.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Generic

import torch

from .architecture import ARCHITECTURES, Architecture, architecture_of, capability_of
from .launch_table import (
    LaunchT,
    LaunchTable,
    LaunchTableError,
    Measured,
    ShapeT,
    read_table,
)

TABLES = Path(__file__).parent / "launch_tables"

_MOST_TOKENS = 8192


def _is_any(shape: object, launch: object) -> bool:
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Launches(Generic[ShapeT, LaunchT]):
    """The launches of one operation.

    Attributes:
        operation: names its tables.
        shape: what a launch depends on, a NamedTuple of sizes rounded up.
        launch: a NamedTuple of the constants.
        reasoned: what is launched where nothing was measured, or nothing faster found.
        is_possible: says whether the kernel takes a launch for a shape.
        folder: has a folder of tables for each GPU.
    """

    operation: str
    shape: type[ShapeT]
    launch: type[LaunchT]
    reasoned: Callable[[ShapeT, Architecture], LaunchT]
    is_possible: Callable[[ShapeT, LaunchT], bool] = _is_any
    folder: Path = TABLES
    _chosen: dict[tuple[torch.device, ShapeT], LaunchT] = field(default_factory=dict, init=False)
    _tables: dict[torch.device, Mapping[ShapeT, Measured[LaunchT]]] = field(
        default_factory=dict, init=False
    )

    def choose(self, shape: ShapeT, device: torch.device) -> LaunchT:
        """Return the launch; from the second time of a shape on, that is one look into a dict."""
        chosen = self._chosen.get((device, shape))
        if chosen is None:
            chosen = self._chosen[device, shape] = self._find(shape, device)
        return chosen

    def pin(self, shape: ShapeT, device: torch.device, launch: LaunchT) -> None:
        """Choose a launch whatever tables say: for who measures it, never while serving."""
        assert (device, shape) in self._chosen, f"{self.operation} was never launched for {shape}"
        self._chosen[device, shape] = launch

    def read(self, path: Path) -> LaunchTable[ShapeT, LaunchT]:
        """Read a table, or raise LaunchTableError."""
        return read_table(path, self.shape, self.launch, self.is_possible)

    def to_compile(
        self, shapes: Iterable[ShapeT]
    ) -> Iterator[tuple[Architecture, ShapeT, LaunchT]]:
        """Yield the launches of these shapes on all architectures, and what any table can choose.

        Reasoned launches that several shapes share come several times.
        """
        shapes = list(shapes)
        for architecture in ARCHITECTURES:
            for shape in shapes:
                yield architecture, shape, self.reasoned(shape, architecture)
        for path in sorted(self.folder.glob(f"*/{self.operation}.json")):
            table = self.read(path)
            for shape, measured in table.measured.items():
                if measured.launch is not None:
                    yield Architecture.of(table.capability), shape, measured.launch

    def _find(self, shape: ShapeT, device: torch.device) -> LaunchT:
        if device not in self._tables:
            self._tables[device] = self._measured_on(device)
        measured = self._tables[device].get(shape)
        return (measured and measured.launch) or self.reasoned(shape, architecture_of(device))

    def _measured_on(self, device: torch.device) -> Mapping[ShapeT, Measured[LaunchT]]:
        path = table_path(self.folder, gpu_name(device), self.operation)
        if not path.exists():
            return {}
        table, capability = self.read(path), capability_of(device)
        if table.capability != capability:
            raise LaunchTableError(f"{path}: capability {table.capability} is not {capability}")
        return table.measured


def table_path(folder: Path, gpu: str, operation: str) -> Path:
    """Return where the table of an operation on a GPU is, if there is one."""
    return folder / gpu.lower().replace(" ", "_") / f"{operation}.json"


@cache
def gpu_name(device: torch.device) -> str:
    """Return a GPU's name as its driver tells it; on a CPU Triton's interpreter runs."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


def rounded_up(size: int, least: int = 16) -> int:
    """Return the power of 2 that tables know a size by."""
    return 1 << (max(size, least) - 1).bit_length()


def rounded_up_tokens(num_tokens: int) -> int:
    """Return what tables know a number of tokens by; the largest steps are all alike."""
    return rounded_up(min(num_tokens, _MOST_TOKENS))
