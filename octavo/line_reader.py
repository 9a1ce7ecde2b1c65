"""Reads lines from a pipe on the event loop."""

import asyncio
import os
from collections.abc import Callable

_READ_BYTES = 64 * 1024
_LONGEST_LINE_BYTES = 64 * 1024


class LineReader:
    """Hands over the lines of a pipe as they come; a line without end is cut, not collected.

    Attributes:
        closed: set at the end of the file, when the last line was handed over.
    """

    def __init__(self, fd: int, on_line: Callable[[str], None]) -> None:
        """Own the reading end `fd` from now on, and close it in the end."""
        self._fd = fd
        self._on_line = on_line
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self.closed = asyncio.Event()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def close(self) -> None:
        """Hand over what is left of a line, and read no more."""
        if self.closed.is_set():
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        if self._rest:
            self._hand_over(self._rest)
        self.closed.set()

    def _read(self) -> None:
        data = os.read(self._fd, _READ_BYTES)
        if not data:
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._hand_over(line)
        if len(self._rest) > _LONGEST_LINE_BYTES:
            self._hand_over(self._rest)
            self._rest = b""

    def _hand_over(self, line: bytes) -> None:
        self._on_line(line.decode("utf-8", errors="replace").rstrip("\r"))
