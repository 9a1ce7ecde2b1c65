"""A device's queue of work, as its runner sees it: copies either way that nobody waits for.

    upload    host → device, in the order of the step's other work
    fetch     device → host, beside the work that follows; whoever wants the numbers waits
    mark      a moment in the queue, to tell later how long what lies between two of them took

On a GPU that is a stream, one more for the copies back, events and pinned memory. Where the device
is the CPU itself, as where Triton is interpreted, all has happened before a call returns.
"""

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Uploads that may be under way: the host is two steps ahead at most, each with a dozen of them.
_NUM_SLOTS = 32


class Fetch(Protocol):
    """Numbers on their way to the host."""

    def wait(self) -> list[Tensor]:
        """Return them, on the CPU, once they are there and all before them is done."""
        ...


class Mark(Protocol):
    def ns_until(self, later: "Mark") -> int:
        """Return nanoseconds to a later mark, once a fetch after that has come."""
        ...


class DeviceStream(Protocol):
    """What a runner asks of its device beside kernels."""

    def upload(self, values: NDArray[np.int32]) -> Tensor:
        """Return a copy on the device, for work that is queued next; others take its place later.

        The values may be changed at once.
        """
        ...

    def fetch(self, tensors: Sequence[Tensor]) -> Fetch: ...

    def mark(self) -> Mark: ...


def stream_of(device: torch.device) -> DeviceStream:
    return CudaStream(device) if device.type == "cuda" else HostStream()


class HostStream:
    """The stream of a device that is the CPU."""

    def upload(self, values: NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(values.copy())

    def fetch(self, tensors: Sequence[Tensor]) -> "HostFetch":
        return HostFetch([tensor.clone() for tensor in tensors])

    def mark(self) -> "HostMark":
        return HostMark(time.monotonic_ns())


class HostFetch:
    def __init__(self, copies: list[Tensor]) -> None:
        self._copies = copies

    def wait(self) -> list[Tensor]:
        return self._copies


class HostMark:
    def __init__(self, time_ns: int) -> None:
        self._time_ns = time_ns

    def ns_until(self, later: Mark) -> int:
        assert isinstance(later, HostMark)
        return later._time_ns - self._time_ns


class CudaStream:
    """The current stream of a GPU, and one for the way back."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = [_PinnedSlot(device) for _ in range(_NUM_SLOTS)]

    def upload(self, values: NDArray[np.int32]) -> Tensor:
        slot = self._slots.pop(0)
        self._slots.append(slot)
        return slot.upload(values)

    def fetch(self, tensors: Sequence[Tensor]) -> "CudaFetch":
        self._copies.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._copies):
            return CudaFetch(tensors)

    def mark(self) -> "CudaMark":
        return CudaMark(self._device)


class _PinnedSlot:
    """Memory that the device reads while the host goes on, and where it puts what it has read.

    Both are used again, the host's once it has been read. Work that reads the device's is queued
    before that, so nothing is taken of its memory but for more numbers than there ever were.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory = torch.empty(0, dtype=torch.int32)
        self._on_device = torch.empty(0, dtype=torch.int32, device=device)
        self._is_read = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def upload(self, values: NDArray[np.int32]) -> Tensor:
        # Done long ago, unless uploads come faster than the device takes them.
        self._is_read.synchronize()
        if len(self._memory) < len(values):
            size = 1 << (len(values) - 1).bit_length()
            self._on_device = torch.empty(size, dtype=torch.int32, device=self._device)
            self._memory = torch.empty(size, dtype=torch.int32, pin_memory=True)
        pinned = self._memory[: len(values)]
        pinned.numpy()[:] = values
        uploaded = self._on_device[: len(values)].copy_(pinned, non_blocking=True)
        self._is_read.record(torch.cuda.current_stream(self._device))
        return uploaded


class CudaFetch:
    """Copies that were begun on the current stream, the one for them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._copies = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors
        ]
        stream = torch.cuda.current_stream()
        for copy, tensor in zip(self._copies, tensors, strict=True):
            # Its memory is not given to others before it is read, whoever forgets this fetch.
            tensor.record_stream(stream)
            copy.copy_(tensor, non_blocking=True)
        self._is_done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._is_done.record()

    def wait(self) -> list[Tensor]:
        self._is_done.synchronize()
        return self._copies


class CudaMark:
    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(device))

    def ns_until(self, later: Mark) -> int:
        assert isinstance(later, CudaMark)
        milliseconds: float = self._event.elapsed_time(later._event)
        return round(milliseconds * 1e6)
