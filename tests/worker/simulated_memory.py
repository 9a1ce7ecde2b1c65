"""The memory of a device that is none: what is taken is counted, by this program and by others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

GIB = 1 << 30


@dataclass
class SimulatedMemory:
    """A DeviceMemory. `allocate` is a tensor, `load` what libraries take beside the allocator."""

    total: int = 140 * GIB
    others: int = 0
    _loaded: int = 0
    _allocated: int = 0
    _pools: int = 0
    _peak: int = field(default=0, init=False)

    def total_bytes(self) -> int:
        return self.total

    def free_bytes(self) -> int:
        return self.total - self.others - self._loaded - self._allocated - self._pools

    def held_bytes(self) -> int:
        return self._allocated

    def peak_bytes(self, work: Callable[[], object]) -> int:
        self._peak = self._allocated
        work()
        return self._peak

    def load(self, num_bytes: int) -> None:
        self._loaded += num_bytes

    def allocate(self, num_bytes: int) -> None:
        self._allocated += num_bytes
        self._peak = max(self._peak, self._allocated)

    def take_for_graph(self, num_bytes: int) -> None:
        self._pools += num_bytes

    @contextmanager
    def allocated(self, num_bytes: int) -> Iterator[None]:
        self.allocate(num_bytes)
        try:
            yield
        finally:
            self._allocated -= num_bytes
