"""Records work as Python closures, where there is no CUDA to record it: replaying runs it again."""

from collections.abc import Callable

from torch import Tensor

from octavo.worker.device_runner import DeviceRunner


class Replayed:
    """Work that is done again when it is replayed, into what it answered with at first."""

    def __init__(self, work: Callable[[], Tensor]) -> None:
        self._work = work
        self.output = work()
        self.num_replays = 0

    def replay(self) -> None:
        self.num_replays += 1
        self.output.copy_(self._work())


class Recorder:
    """A GraphRecorder; keeps all it has recorded."""

    def __init__(self) -> None:
        self.graphs: list[Replayed] = []

    def record(self, work: Callable[[], Tensor]) -> Replayed:
        self.graphs.append(Replayed(work))
        return self.graphs[-1]


def prepared(runner: DeviceRunner) -> DeviceRunner:
    """Record all graphs, as while there is no plan."""
    while runner.prepare():
        pass
    return runner
