"""What a device says of its memory, and what follows from it: room for the KV cache."""

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import torch

from octavo.startup import StartupError


class DeviceMemory(Protocol):
    """What a device says of its memory, in bytes."""

    def total_bytes(self) -> int: ...

    def free_bytes(self) -> int:
        """Return what any program can still take; what this one has freed counts as free."""
        ...

    def held_bytes(self) -> int:
        """Return what tensors of this process hold."""
        ...

    def peak_bytes(self, work: Callable[[], object]) -> int:
        """Run `work`; return the most that this process had taken for tensors meanwhile."""
        ...


class CudaMemory:
    """The memory of a GPU, by CUDA and by PyTorch's allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def total_bytes(self) -> int:
        return torch.cuda.mem_get_info(self._device)[1]

    def free_bytes(self) -> int:
        # A model that is no longer used, but was recorded in graphs, refers to itself.
        gc.collect()
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self._device)[0]

    def held_bytes(self) -> int:
        return torch.cuda.memory_allocated(self._device)

    def peak_bytes(self, work: Callable[[], object]) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        torch.cuda.synchronize(self._device)
        # Reserved, not allocated: the allocator's gaps are taken, too.
        return torch.cuda.max_memory_reserved(self._device)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredMemory:
    """Where the memory of a device is before there is a KV cache; in bytes."""

    total_bytes: int
    others_bytes: int
    """What other programs, and CUDA for this one, had taken at the start."""
    program_bytes: int
    """What kernels and libraries have taken since."""
    weights_bytes: int
    """With all else that stays: rows, tables."""
    graphs_bytes: int
    activations_bytes: int
    """The most that a step takes, and gives back."""

    @property
    def own_bytes(self) -> int:
        """What this worker takes without the KV cache."""
        return self.program_bytes + self.weights_bytes + self.graphs_bytes + self.activations_bytes

    def kv_cache_bytes(self, gpu_memory_utilization: float) -> int:
        """Return what is left of the share of all memory that this worker may take.

        Raises StartupError if that is nothing.
        """
        usable = int(self.total_bytes * gpu_memory_utilization)
        left = min(usable, self.total_bytes - self.others_bytes) - self.own_bytes
        if left <= 0:
            raise StartupError(
                f"no memory for a KV cache: of {_gb(self.total_bytes)} the worker may take"
                f" {_gb(usable)} (--gpu-memory-utilization {gpu_memory_utilization:g}), others have"
                f" {_gb(self.others_bytes)}, and without a cache it takes {_gb(self.own_bytes)}:"
                f" weights {_gb(self.weights_bytes)}, the largest step"
                f" {_gb(self.activations_bytes)}, graphs {_gb(self.graphs_bytes)}, kernels"
                f" {_gb(self.program_bytes)}. Raise the share, end other programs, or lower"
                " --max-num-batched-tokens."
            )
        return left


def measure_memory(
    memory: DeviceMemory,
    free_at_start_bytes: int,
    run_largest_step: Callable[[], object],
    captures: Sequence[Sequence[Callable[[], object]]],
    temporary_bytes: int,
) -> MeasuredMemory:
    """Find out what the model takes, now that it is loaded and has a cache for one step.

    Args:
        free_at_start_bytes: what was free before anything was loaded.
        run_largest_step: runs the step that takes most.
        captures: of each kind of graphs, at least one; each captures a size, the largest first,
            and what it returns is kept meanwhile. Only two of a kind are captured: any other takes
            as much as the second, which has the pool of the first. Idea: vLLM's estimate.
        temporary_bytes: size of that cache, which is not to stay.
    """
    # What is loaded or built when it first runs stays, and is none of the step's.
    run_largest_step()
    peak = memory.peak_bytes(run_largest_step)
    free, held = memory.free_bytes(), memory.held_bytes()
    total = memory.total_bytes()
    return MeasuredMemory(
        total_bytes=total,
        others_bytes=total - free_at_start_bytes,
        program_bytes=max(free_at_start_bytes - free - held, 0),
        weights_bytes=held - temporary_bytes,
        graphs_bytes=_graphs_bytes(memory, captures),
        activations_bytes=max(peak - held, 0),
    )


def _graphs_bytes(memory: DeviceMemory, captures: Sequence[Sequence[Callable[[], object]]]) -> int:
    kept, total = [], 0
    for kind in captures:
        taken = []
        for capture in kind[:2]:
            before = memory.free_bytes()
            # Without memory for a graph there is none for a cache, which is told then.
            with suppress(torch.OutOfMemoryError):
                kept.append(capture())
            taken.append(max(before - memory.free_bytes(), 0))
        total += sum(taken) + (len(kind) - len(taken)) * taken[-1]
    return total


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
