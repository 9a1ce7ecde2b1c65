"""Where the time of steps went, as the C++ kernels have counted it."""

import ctypes

from .cpu import library

# In the order of cpu/profile.h.
_PARTS = ("linear", "attention", "rope_and_kv_write", "norm", "head", "sampling", "waiting")


def seconds_by_part() -> dict[str, float]:
    """Return the seconds spent in each kind of work since the process began.

    `waiting`, for other threads to end their share, is a part of the others' time. All are zero
    without C++ kernels.
    """
    nanoseconds = (ctypes.c_int64 * len(_PARTS))()
    if cpu := library.load():
        cpu.read_profile(nanoseconds)
    return {part: count / 1e9 for part, count in zip(_PARTS, nanoseconds, strict=True)}
