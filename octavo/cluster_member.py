"""One process of the cluster and, when it ends, the next that takes its place."""

import asyncio
import signal
import time
from typing import Any, NoReturn

from .child_process import ChildCommand, ChildProcess
from .console import Console
from .restart_policy import FailureHistory, RestartPolicy
from .startup import StartupError

_STOPPED_LOOKS = 10
"""Where a process was stopped each time, it stands still. Once could be that it was stopped with
us, and goes on a moment later."""


class ClusterMember:
    """Keeps one command running.

    Attributes:
        ready: set once the process could serve for the first time.
    """

    def __init__(self, command: ChildCommand, console: Console, restarts: RestartPolicy) -> None:
        self.ready = asyncio.Event()
        self._command = command
        self._console = console
        self._restarts = restarts
        self._process: ChildProcess | None = None
        self._refusal: str | None = None

    async def keep_running(self) -> NoReturn:
        """Start the process, and again whenever it ends, until cancelled; that leaves it running.

        Raises:
            StartupError: it says that it cannot start, or ends again and again.
        """
        history = FailureHistory(self._restarts)
        while True:
            started_s = time.monotonic()
            self._process = ChildProcess(
                self._command, on_line=self._on_line, on_message=self._on_message
            )
            end = _describe(await self._end_of(self._process))
            self._process = None
            if self._refusal is not None and not self.ready.is_set():
                raise StartupError(f"{self._command.name} cannot start: {self._refusal}")
            delay_s = history.next_delay_s(started_s, time.monotonic())
            if delay_s is None:
                raise StartupError(
                    f"{self._command.name} {end}, for the {self._restarts.max_failures + 1}th time"
                    f" in {self._restarts.window_s:g} s; its last lines above may say why."
                )
            self._on_line(f"{end}; it is started again in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)

    async def _end_of(self, process: ChildProcess) -> int:
        """Return how it ended; one that stands still is killed, for it would never end."""
        num_looks = 0
        while not process.ended.done():
            # Unlike awaiting the task, this does not cancel it with us.
            await asyncio.wait(
                [process.ended], timeout=self._restarts.stopped_limit_s / _STOPPED_LOOKS
            )
            num_looks = num_looks + 1 if process.is_stopped else 0
            if num_looks == _STOPPED_LOOKS:
                self._on_line("was stopped by a signal, does not go on, and is killed")
                process.kill()
        return process.ended.result()

    async def drain(self, timeout_s: float) -> bool:
        """Let the process drain, for `timeout_s` at most; return whether it ended in time."""
        process = self._process
        if process is None:
            return True
        process.terminate()
        in_time, _ = await asyncio.wait([process.ended], timeout=timeout_s)
        if not in_time:
            self._on_line(f"did not end within {timeout_s:g} s and is killed")
            process.kill()
            await process.ended
        return bool(in_time)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _on_line(self, line: str) -> None:
        self._console.log(self._command.name, line)

    def _on_message(self, message: dict[str, Any]) -> None:
        if "stage" in message:
            self._console.stage(self._command.name, message["stage"], message["seconds"])
        elif "failed" in message:
            self._refusal = message["failed"]
        elif self.ready.is_set():
            self._on_line("ready again")
        else:
            self.ready.set()


def _describe(status: int) -> str:
    """Say how a process ended, in the words of the shell."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
