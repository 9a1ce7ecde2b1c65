"""An engine's processes: stopped by a signal while others are measured, so that waiting is free."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_STOP_TIMEOUT_S = 20.0
_SHOWN_LOG_LINES = 15


class EngineFailed(Exception):
    """An engine is not there, refused or ended; the text says what to look at."""


class ProcessGroup:
    """A command and all that it starts.

    A runtime whose threads spin while they wait, or one that polls, would otherwise take time from
    the engine whose turn it is.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        *,
        is_driven: bool,
    ) -> None:
        """Start it; standard error, and output unless it is driven by pipes, go to `log_path`."""
        self._log_path = log_path
        with log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if is_driven else subprocess.DEVNULL,
                stdout=subprocess.PIPE if is_driven else log,
                stderr=log,
                env={**_inherited(), **environment},
                text=True,
            )

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End them all, those included that the first one leaves behind."""
        everything = self._tree()
        self.resume()
        self.process.terminate()
        _, alive = psutil.wait_procs(everything, _STOP_TIMEOUT_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.communicate()

    def failure(self) -> EngineFailed:
        """Return an error that carries the end of the log."""
        lines = self._log_path.read_text(errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
        return EngineFailed("\n".join([f"ended; {self._log_path} ends with:", *lines]))

    def _signal(self, number: signal.Signals) -> None:
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _inherited() -> dict[str, str]:
    """Return our own environment, but for what makes OpenMP's threads sleep: peers lose by it."""
    return {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
