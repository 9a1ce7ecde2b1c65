"""A core that the worker's step loop has to itself, on a machine that all processes share.

A process that is woken by one that runs often comes up on that one's core, even where another is
idle. Each result that a CPU worker sends wakes scheduler, router and gateway in turn, just before
its next step. So all threads but the step loop's keep off one core. The others hold a thread of
the kernels each, whose work is taken over while somebody else has its core.

Where the system does not let threads choose their cores, they go where it puts them.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_NVIDIA_DRIVER = Path("/dev/nvidiactl")


def step_loop_core(device: str, cpu_threads: int | None) -> int | None:
    """Return the core to keep for the step loop; None for none.

    Beside a GPU cores idle anyway, and where kernels leave some unused there may be other workers,
    each with some of them.

    Args:
        device: that steps are computed on, as for `octavo serve`.
        cpu_threads: of the kernels; None: one for each core.
    """
    if device == "cuda" or (device == "auto" and _NVIDIA_DRIVER.exists()):
        return None
    cores = os.sched_getaffinity(0)
    if len(cores) == 1 or (cpu_threads is not None and cpu_threads < len(cores)):
        return None
    # The kernels' other threads take theirs from the last one down (thread_pool.cpp).
    return min(cores)


def leave_core(core: int) -> None:
    """Keep all threads of this process, and those that they start, off a core.

    A thread that has nowhere else to go stays.
    """
    # One that is started meanwhile may have come from a thread that was still allowed there.
    while any([_leave(core, thread) for thread in _threads()]):
        pass


def _leave(core: int, thread: int) -> bool:
    """Return whether the thread was allowed there, and is not any more."""
    allowed = _allowed(thread)
    if core not in allowed or len(allowed) == 1:
        return False
    try:
        os.sched_setaffinity(thread, allowed - {core})
    except OSError:
        return False  # It has ended, or may not choose.
    return True


def take_core(core: int) -> None:
    """Keep the calling thread on a core. What it starts begins there: see leave_starters_core."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {core})


def leave_starters_core() -> None:
    """Let the calling thread run where others of the process may, if its starter has a core."""
    own = os.sched_getaffinity(0)
    if len(own) > 1:
        return
    others = set[int]().union(*map(_allowed, _threads())) - own
    with contextlib.suppress(OSError):
        if others:
            os.sched_setaffinity(0, others)


def _threads() -> Iterator[int]:
    return map(int, os.listdir("/proc/self/task"))


def _allowed(thread: int) -> set[int]:
    """Return the cores that a thread may run on; none if it has ended."""
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:
        return set()
