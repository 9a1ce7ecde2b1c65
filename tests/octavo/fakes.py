"""What the supervisor's tests share: commands that run fake_service.py, a recording console."""

import asyncio
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

from octavo.child_process import ChildCommand

_FAKE_SERVICE = str(Path(__file__).with_name("fake_service.py"))


def fake_command(name: str, *actions: str) -> ChildCommand:
    # -S -E: without site-packages it starts in a hundredth of a second.
    return ChildCommand(name, (sys.executable, "-S", "-E", _FAKE_SERVICE, *actions), {})


class RecordingConsole:
    """Remembers what was shown, and wakes who waits for it."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.stages: list[tuple[str, str, float]] = []
        self._changed = asyncio.Event()

    def log(self, process: str, line: str) -> None:
        self.lines.append((process, line))
        self._changed.set()

    def stage(self, process: str, text: str, seconds: float) -> None:
        self.stages.append((process, text, seconds))
        self._changed.set()

    def say(self, text: str) -> None:
        self.log("", text)

    async def until(self, is_enough: Callable[["RecordingConsole"], bool]) -> None:
        while not is_enough(self):
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 30)

    async def shows(self, process: str, line: str) -> None:
        await self.until(lambda console: (process, line) in console.lines)

    def lines_of(self, process: str) -> list[str]:
        return [line for name, line in self.lines if name == process]


def has_ended(pid: int, *, within_s: float = 30.0) -> bool:
    """Return whether the process is gone, waiting for its end."""
    try:
        pid_fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pid_fd], [], [], within_s)[0])
    finally:
        os.close(pid_fd)
