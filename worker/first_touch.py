"""Asks the system for the KV cache's memory ahead of the blocks that come into use.

The system finds and clears a page of memory when it is first written, and a step that writes to new
blocks would wait for that on every layer. To take all of it at the start would take seconds, and
memory that many never use.
"""

import ctypes
import logging
import mmap
import os
import sys
import threading

from torch import Tensor

from octavo.cores import leave_starters_core

logger = logging.getLogger(__name__)

# What is asked for ahead of the last block in use, and how much of it in one call.
_AHEAD_BYTES = 512 << 20
_CALL_BYTES = 4 << 20

# Of Linux, from 5.14 on: it writes to the pages without changing what is in them.
_MADV_POPULATE_WRITE = 23
# Beside a thread that computes, a quarter of its core. With the lowest priority it came too late
# under load, and single steps took 150 ms longer (on a small virtual machine, 2026-11).
_NICE = 5


class FirstTouch:
    """Keeps ahead of one cache. Its thread lives only while there is something to ask for."""

    def __init__(self, cache: Tensor) -> None:
        """`cache` is [num_layers, num_blocks, ...], contiguous."""
        self._cache = cache
        self._layer_bytes = cache[0].nbytes
        self._block_bytes = cache[0, 0].nbytes
        self._num_blocks = cache.shape[1]
        self._num_ahead = max(_AHEAD_BYTES // (len(cache) * self._block_bytes), 1)
        self._lock = threading.Lock()
        self._num_wanted = 0
        self._num_touched = 0
        self._thread: threading.Thread | None = None

    def reach(self, block: int) -> None:
        """Tell that blocks up to this one come into use; returns at once."""
        if sys.platform != "linux":
            return
        wanted = min(block + 1 + self._num_ahead, self._num_blocks)
        if wanted <= self._num_wanted:
            return
        with self._lock:
            self._num_wanted = wanted
            if self._thread is None:
                self._thread = threading.Thread(target=self._touch, name="first-touch", daemon=True)
                self._thread.start()

    def _touch(self) -> None:
        leave_starters_core()
        # Of this thread only, on Linux.
        os.nice(_NICE)
        num_blocks = max(_CALL_BYTES // self._block_bytes, 1)
        while True:
            with self._lock:
                first, end = self._num_touched, self._num_wanted
                if first >= end:
                    self._thread = None
                    return
            end = min(end, first + num_blocks)
            if not self._populate(first, end):
                # An older system, or one without memory: steps will wait, as without us.
                end = self._num_blocks
            self._num_touched = end

    def _populate(self, first: int, end: int) -> bool:
        """Whether the system has given the memory of these blocks on every layer."""
        libc = ctypes.CDLL(None, use_errno=True)
        for layer in range(len(self._cache)):
            start = self._cache.data_ptr() + layer * self._layer_bytes
            begin = start + first * self._block_bytes
            page = begin - begin % mmap.PAGESIZE
            size = ctypes.c_size_t(start + end * self._block_bytes - page)
            if libc.madvise(ctypes.c_void_p(page), size, _MADV_POPULATE_WRITE):
                logger.debug("no memory ahead of its use: %s", os.strerror(ctypes.get_errno()))
                return False
        return True
