"""An engine's processes: stopped by a signal while others are measured, so that waiting is free."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_STOP_TIMEOUT_S = 20.0
_REST_TIMEOUT_S = 10.0
_RESTING_LOOKS = 5
_LOOK_S = 0.02
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
        """Stop them once they rest: what is still to be done after a turn is not the next one's."""
        deadline_s = time.monotonic() + _REST_TIMEOUT_S
        num_looks = 0
        while num_looks < _RESTING_LOOKS and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
            num_looks = 0 if self._is_running() else num_looks + 1
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

    def _is_running(self) -> bool:
        """Whether a thread of theirs runs, or would if it had a core."""
        for process in self._tree():
            # Threads end while they are looked at.
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{process.pid}/task").iterdir():
                    state = (thread / "stat").read_text().rpartition(")")[2].split()[0]
                    if state == "R":
                        return True
        return False

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _inherited() -> dict[str, str]:
    """Return our own environment, but for what makes OpenMP's threads sleep: peers lose by it."""
    return {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
