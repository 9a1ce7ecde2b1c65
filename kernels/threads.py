"""How many threads the kernels work on: a pool of their own, beside that of torch."""

import os
import sys

from .cpu import library


def num_threads() -> int:
    """As many as the process may use cores, unless set."""
    cpu = library.load()
    return int(cpu.get_num_threads()) if cpu else _num_cores()


def set_num_threads(num_threads: int | None) -> None:
    """Let the kernels use so many threads from the next call on, the caller among them.

    Args:
        num_threads: at least 1; None: one for each core that the process may use.
    """
    if cpu := library.load():
        cpu.set_num_threads(num_threads or _num_cores())


def _num_cores() -> int:
    # Only Linux tells which of them are ours.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
