"""`octavo serve` as a benchmark has it: on free ports, ready when entered, ended when left."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 60
_POLL_S = 0.1


@contextlib.contextmanager
def octavo_server(
    model: str, flags: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """Run a server; yields the port of its REST API and its process id."""
    port, grpc_port = free_ports(2)
    command = [sys.executable, "-P", "-m", "octavo.cli", "serve", model, "--port", str(port)]
    command += ["--grpc-port", str(grpc_port), *flags]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
    ) as process:
        try:
            _wait_until_ready(process, port)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_TIMEOUT_S)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, one after another."""
    while True:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            first = int(listener.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                for port in range(first + 1, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                return list(range(first, first + count))


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            sys.exit("octavo serve ended during its start; its log above says why")
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready").close()
            return
        time.sleep(_POLL_S)
    sys.exit(f"octavo serve was not ready within {_START_TIMEOUT_S} s")
