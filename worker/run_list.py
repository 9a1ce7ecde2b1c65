"""Runs: stretches of numbers for the memory of a device, gathered on the host into one copy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.write_runs import write_runs

from .block_tables import ragged_range
from .device_stream import DeviceStream

Numbers = NDArray[np.int32]
Places = NDArray[np.int64]

# A program of the kernel writes a run; those of long prompts are cut, for many programs to write.
_MAX_RUN = 4096
# What lies side by side in the copy begins at multiples of 16 bytes, whatever the number of runs.
_PADDING = 4


class RunList:
    """What is to be written, until it is sent."""

    def __init__(self) -> None:
        self._destinations: list[Places] = []
        self._lengths: list[Places] = []
        self._values: list[Numbers] = []

    def add(self, destination: int, values: NDArray[np.integer]) -> None:
        """Add one run: `values` from `destination` on, counted in numbers."""
        self.add_each(np.array([destination]), np.array([len(values)]), values)

    def add_each(
        self,
        destinations: Places,
        lengths: Places,
        values: NDArray[np.integer],
    ) -> None:
        """Add runs whose values stand one after the other."""
        self._destinations.append(destinations)
        self._lengths.append(lengths)
        self._values.append(values.astype(np.int32, copy=False))

    def scatter(self, destinations: Places, values: NDArray[np.integer]) -> None:
        """Add a run of one number for each destination."""
        self.add_each(destinations, np.ones(len(destinations), np.int64), values)

    def send(self, memory: Tensor, stream: DeviceStream) -> None:
        """Write all runs to `memory`, int32 on the device: one copy, and one kernel."""
        if not self._values:
            return
        packed, num_runs = self._packed()
        on_device = stream.upload(packed)
        write_runs(
            memory,
            destinations=on_device[: 2 * num_runs].view(dtype=torch.int64),
            lengths=on_device[2 * num_runs : 3 * num_runs],
            sources=on_device[3 * num_runs : 4 * num_runs],
            values=on_device[4 * num_runs :],
        )

    def _packed(self) -> tuple[Numbers, int]:
        """Return destinations, lengths, sources and values in a row, and the number of runs."""
        destinations, lengths = map(np.concatenate, (self._destinations, self._lengths))
        sources = lengths.cumsum() - lengths
        if lengths.max(initial=0) > _MAX_RUN:
            destinations, lengths, sources = _cut(destinations, lengths, sources)
        # Runs of no length do no harm.
        padding = (0, -len(lengths) % _PADDING)
        columns = [np.pad(each, padding) for each in (destinations, lengths, sources)]
        as_numbers = [columns[0].view(np.int32), *(each.astype(np.int32) for each in columns[1:])]
        return np.concatenate([*as_numbers, *self._values]), len(columns[0])


def _cut(destinations: Places, lengths: Places, sources: Places) -> tuple[Places, Places, Places]:
    """Return the runs in pieces of at most _MAX_RUN."""
    num_pieces = np.maximum(-(-lengths // _MAX_RUN), 1)
    run = np.repeat(np.arange(len(lengths)), num_pieces)
    begin = ragged_range(np.zeros_like(lengths), num_pieces) * _MAX_RUN
    left = np.minimum(lengths[run] - begin, _MAX_RUN)
    return destinations[run] + begin, left, sources[run] + begin
