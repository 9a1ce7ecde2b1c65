"""The memory of this machine and of this process."""

import ctypes
import os
import re
import resource
from pathlib import Path

_STATM = Path("/proc/self/statm")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def machine_bytes() -> int:
    """Return the memory of the machine, or of the container if that may use less."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _container_limit()
    return memory if limit is None else min(memory, limit)


def available_bytes() -> int:
    """Return what programs can still take; pages of files that can be read again count as free."""
    if not _MEMINFO.exists():
        return machine_bytes()
    (kibibytes,) = re.findall(r"^MemAvailable:\s+(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
    available = int(kibibytes) << 10
    limit = _container_limit()
    if limit is None:
        return available
    used = int((_CGROUP / "memory.current").read_text())
    stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    return max(min(available, limit - used + int(stat["inactive_file"])), 0)


def resident_bytes() -> int:
    """Return the memory that this process holds (RSS): its own and the libraries it has loaded."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # Where Linux is not there is only the peak, on macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def return_freed_memory() -> None:
    """Give the system what was freed; glibc keeps it, scattered among what is still used."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _container_limit() -> int | None:
    path = _CGROUP / "memory.max"
    if not path.exists() or (limit := path.read_text().strip()) == "max":
        return None
    return int(limit)
