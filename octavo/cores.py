"""A core that the worker's step loop has to itself, on a machine that all processes share.

A process that is woken by one that runs often comes up on that one's core, even where another is
idle. Each result that a CPU worker sends wakes scheduler, router and gateway in turn, just before
its next step. So all threads but the step loop's keep off one core. The others hold a thread of
the kernels each, whose work is taken over while somebody else has its core.
"""

import os


def step_loop_core(cpu_threads: int | None) -> int | None:
    """Return the core to keep for the step loop; None for none.

    Where kernels leave cores unused, there may be other workers, each with some of them.

    Args:
        cpu_threads: of the kernels; None: one for each core.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) == 1 or (cpu_threads is not None and cpu_threads < len(cores)):
        return None
    return min(cores)


def leave_core(core: int) -> None:
    """Keep all threads of this process, and those that they start, off a core.

    A thread that has nowhere else to go stays.
    """
    # One that is started meanwhile may have come from a thread that was still allowed there.
    while any([_leave(core, thread) for thread in map(int, os.listdir("/proc/self/task"))]):
        pass


def _leave(core: int, thread: int) -> bool:
    """Return whether the thread was allowed there, and is not any more."""
    try:
        allowed = os.sched_getaffinity(thread)
        if core not in allowed or len(allowed) == 1:
            return False
        os.sched_setaffinity(thread, allowed - {core})
    except ProcessLookupError:
        return False  # It has ended.
    return True


def take_core(core: int) -> None:
    """Keep the calling thread on a core."""
    os.sched_setaffinity(0, {core})
