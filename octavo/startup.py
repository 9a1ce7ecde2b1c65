"""How a process tells `octavo serve` how far its start-up is: one JSON object a line on a pipe."""

import json
import os
import time
from dataclasses import dataclass, field


@dataclass
class StartupReport:
    """Reports finished stages, with the seconds each took, and readiness."""

    ready_fd: int | None
    """The pipe's writing end; None where nobody listens."""
    _since: float = field(default_factory=time.monotonic)

    def stage(self, text: str) -> None:
        """Report that what `text` names is done; its time began where the last stage ended."""
        now = time.monotonic()
        self._write({"stage": text, "seconds": round(now - self._since, 3)})
        self._since = now

    def ready(self, text: str = "") -> None:
        """Report that the process can serve, and close the pipe."""
        self._write({"ready": text})
        self._close()

    def failed(self, reason: str) -> None:
        """Report why the process cannot start, in a sentence for people, and close the pipe."""
        self._write({"failed": reason})
        self._close()

    def _write(self, message: dict[str, object]) -> None:
        if self.ready_fd is not None:
            os.write(self.ready_fd, json.dumps(message).encode() + b"\n")

    def _close(self) -> None:
        if self.ready_fd is not None:
            os.close(self.ready_fd)
            self.ready_fd = None
