"""The private directory where the sockets of one cluster are."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .startup import StartupError

# What fits into sockaddr_un.sun_path, without the zero at the end.
_LONGEST_SOCKET_PATH = 107
_ROOM_FOR_NAMES = len("/octavo-01234567/scheduler.sock")


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """Make a directory that only we can enter (mode 0700), and remove it in the end."""
    candidates = (os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp")
    for parent in candidates:
        if len(os.fsencode(parent)) > _LONGEST_SOCKET_PATH - _ROOM_FOR_NAMES or not parent:
            continue
        if os.access(parent, os.W_OK | os.X_OK):
            with tempfile.TemporaryDirectory(
                prefix="octavo-", dir=parent, ignore_cleanup_errors=True
            ) as path:
                yield Path(path)
            return
    raise StartupError(
        "there is no directory for the cluster's sockets: none of"
        f" {', '.join(filter(None, candidates))} can be written to and has a short enough path."
        " Set TMPDIR."
    )
