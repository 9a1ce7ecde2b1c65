"""How a process starts: its stages, told to `octavo serve`, and errors an operator can mend."""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from . import failpoints
from .cores import leave_core
from .logs import configure_logging
from .run import run
from .settings import ProcessSettings

log = structlog.get_logger()

SettingsT = TypeVar("SettingsT", bound=ProcessSettings)


class StartupError(Exception):
    """Something that the operator can mend: a port taken, a path that is wrong, a file that is cut.

    The text says what and where, and what to do; it is all the operator sees.
    """


@dataclass
class StartupReport:
    """Reports finished stages, with the seconds each took, and readiness.

    One JSON object a line on a pipe: {"stage", "seconds"}, then {"ready"} or {"failed"}. A process
    that was started by hand has no pipe, and says so in its log. What comes after the end of the
    start, when a process that is ready attaches again, is not reported.
    """

    ready_fd: int | None
    """The pipe's writing end; None where nobody listens."""
    on_ready: Callable[[], None] | None = None
    """Called when the process is ready, at the end of its start."""
    _since: float = field(default_factory=time.monotonic)
    _is_over: bool = False

    def stage(self, text: str) -> None:
        """Report that what `text` names is done; its time began where the last stage ended."""
        now = time.monotonic()
        seconds = round(now - self._since, 3)
        self._write({"stage": text, "seconds": seconds})
        if self.ready_fd is None and not self._is_over:
            log.info(text, seconds=seconds)
        self._since = now

    def ready(self, text: str = "") -> None:
        """Report that the process can serve, and close the pipe."""
        if self.on_ready is not None and not self._is_over:
            self.on_ready()
        self._write({"ready": text})
        if self.ready_fd is None and not self._is_over:
            log.info("ready")
        self._close()

    def failed(self, reason: str) -> None:
        """Report why the process cannot start, in a sentence for people, and close the pipe."""
        self._write({"failed": reason})
        if self.ready_fd is None:
            log.error(reason)
        self._close()

    def _write(self, message: dict[str, object]) -> None:
        if self.ready_fd is not None:
            os.write(self.ready_fd, json.dumps(message).encode() + b"\n")

    def _close(self) -> None:
        self._is_over = True
        if self.ready_fd is not None:
            os.close(self.ready_fd)
            self.ready_fd = None


def run_service(
    settings: SettingsT,
    serve: Callable[[SettingsT, StartupReport], Coroutine[None, None, None]],
    *,
    use_uvloop: bool = False,
) -> None:
    """Run one process from its settings to its end: what each service's `main` does.

    A StartupError becomes one line and exit status 1.
    """
    configure_logging(settings)
    failpoints.activate(settings.failpoints)

    def settle() -> None:
        # What the start made lives as long as the process. A full collection that looked at all of
        # it would stop every stream for 20 ms and more.
        gc.freeze()
        # Not before: while they start, all processes may use all cores.
        if settings.step_loop_core is not None:
            leave_core(settings.step_loop_core)

    report = StartupReport(settings.ready_fd, on_ready=settle)
    try:
        run(serve(settings, report), use_uvloop=use_uvloop)
    except StartupError as error:
        report.failed(str(error))
        sys.exit(1)
