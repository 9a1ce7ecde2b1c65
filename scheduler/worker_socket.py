"""The socket that workers connect to: private to this user, or guarded by keys."""

import os
import stat
from pathlib import Path

import zmq

from octavo.curve import CurveKeys
from octavo.frames import set_limits
from octavo.startup import StartupError

from .worker_guard import WorkerGuard


class WorkerSocket:
    """A bound ROUTER socket with its context.

    Attributes:
        socket: the ROUTER socket; belongs to the event loop.
    """

    def __init__(self, endpoint: str, keys: CurveKeys | None) -> None:
        """Bind; raises StartupError where that cannot be done, or would not be private."""
        if endpoint.startswith("ipc://"):
            _check_directory(endpoint)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        set_limits(self.socket)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._guard = WorkerGuard(self._context, self.socket, keys) if keys else None
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise StartupError(f"--worker-endpoint {endpoint}: {error.strerror}") from error

    def close(self) -> None:
        if self._guard is not None:
            self._guard.close()
        self._context.destroy()


def _check_directory(endpoint: str) -> None:
    """Create the socket's directory, or check that only its owner can enter it."""
    path = Path(endpoint.removeprefix("ipc://"))
    if len(os.fsencode(path)) > zmq.IPC_PATH_MAX_LEN:
        reason = f"the path is longer than {zmq.IPC_PATH_MAX_LEN} bytes; choose a shorter one"
    else:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartupError(
                f"--worker-endpoint {endpoint}: {path.parent} cannot be made: {error.strerror}"
            ) from error
        mode = stat.S_IMODE(path.parent.stat().st_mode)
        if not mode & 0o077:
            return
        reason = f"others can enter {path.parent} (mode {mode:o}); run `chmod 700 {path.parent}`"
    raise StartupError(f"--worker-endpoint {endpoint}: {reason}")
