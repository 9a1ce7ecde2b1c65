"""A child process: its lines, its start-up messages, its end; it never outlives its parent.

For Linux: PR_SET_PDEATHSIG, and a pidfd, which tells of the end without a thread or SIGCHLD.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .line_reader import LineReader

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

_LAST_LINES_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """How to start a process of the cluster."""

    name: str
    arguments: tuple[str, ...]
    """The program and its arguments; `--ready-fd N` is added."""
    environment: Mapping[str, str]
    """All of it; nothing is inherited."""


class ChildProcess:
    """One running process of the cluster, in a session of its own.

    Attributes:
        ended: done when it has ended and its last line was handed over; the exit status, or minus
            the signal.
    """

    def __init__(
        self,
        command: ChildCommand,
        *,
        on_line: Callable[[str], None],
        on_message: Callable[[dict[str, Any]], None],
    ) -> None:
        """Start the process.

        Args:
            command: what to run.
            on_line: takes each line of its standard output and standard error.
            on_message: takes each message of its StartupReport.
        """
        output_read, output_write = os.pipe()
        ready_read, ready_write = os.pipe()
        self._readers = (
            LineReader(output_read, on_line),
            LineReader(ready_read, lambda line: on_message(json.loads(line))),
        )
        try:
            self._process = subprocess.Popen(
                [*command.arguments, "--ready-fd", str(ready_write)],
                stdin=subprocess.DEVNULL,
                stdout=output_write,
                stderr=output_write,
                pass_fds=(ready_write,),
                env=command.environment,
                start_new_session=True,
                # Ours is the only thread, so nobody can hold a lock across the fork.
                preexec_fn=_end_with_parent(os.getpid()),
            )
        finally:
            os.close(output_write)
            os.close(ready_write)
        self.ended = asyncio.ensure_future(self._wait())

    @property
    def is_stopped(self) -> bool:
        """Whether a signal has stopped it, such as SIGSTOP; where a debugger has, it is not."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return False  # It has ended meanwhile.
        # Its name, in parentheses, may hold anything.
        return stat.rpartition(") ")[2].startswith("T")

    def terminate(self) -> None:
        """Ask it to drain."""
        if not self.ended.done():
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        if not self.ended.done():
            self._process.send_signal(signal.SIGKILL)

    async def _wait(self) -> int:
        await _exit_of(self._process.pid)
        # Not reaped yet, so the number still names its group and nobody else's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        for reader in self._readers:
            # A descendant that left the group could hold the pipe open for ever.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.closed.wait(), _LAST_LINES_TIMEOUT_S)
            reader.close()
        return status


async def _exit_of(pid: int) -> None:
    """Return when our child `pid` is a zombie."""
    pid_fd = os.pidfd_open(pid)
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    loop.add_reader(pid_fd, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(pid_fd)
        os.close(pid_fd)


def _end_with_parent(parent_pid: int) -> Callable[[], None]:
    """Return what a child does before it becomes the program: ask to be killed with its parent."""

    def ask() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)  # The parent died first and the request came too late.

    return ask
