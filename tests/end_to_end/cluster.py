"""A whole cluster, started as a user starts it: `octavo serve` in a process of its own."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
IDLE_TIMEOUT_S = 30


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def free_ports(count: int) -> int:
    """Return the first of so many free ports in a row."""
    while True:
        first = free_port()
        with contextlib.suppress(OSError, OverflowError), contextlib.ExitStack() as listeners:
            for port in range(first, first + count):
                listeners.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


@dataclass
class Cluster:
    """A running `octavo serve`."""

    process: "subprocess.Popen[bytes]"
    log_path: Path
    port: int
    grpc_port: int
    metrics_port: int
    """Of the scheduler; the router's and the worker's are the two after it."""
    model: str

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def process_of(self, command: str) -> psutil.Process:
        """Return the child that runs `octavo COMMAND`."""
        (process,) = [child for child in self.children() if command in child.cmdline()]
        return process

    def metric(self, name: str, **labels: str) -> float:
        """Return one sample of the scheduler's metrics; fails if it is not there."""
        return self.metrics()[name, frozenset(labels.items())]

    def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text
        samples = {}
        for line in text.splitlines():
            if match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line):
                labels = frozenset(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
                samples[match[1], labels] = float(match[3])
        return samples

    def wait_until_idle(self) -> None:
        """Return when the scheduler has no request; fails if it still has one after a while."""
        deadline = time.monotonic() + IDLE_TIMEOUT_S
        while self.metric("octavo_scheduler_running") + self.metric("octavo_scheduler_waiting"):
            assert time.monotonic() < deadline, "requests that nobody reads are still there"
            time.sleep(0.02)

    def stop(self) -> int:
        """SIGTERM, and wait for the end; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def running_cluster(
    log_path: Path, model: str, flags: Sequence[str] = (), *, name: str | None = None
) -> Iterator[Cluster]:
    """Run `octavo serve MODEL FLAGS` on free ports: ready when entered, ended when left."""
    port, grpc_port, metrics_port = free_port(), free_port(), free_ports(3)
    command = [
        *(sys.executable, "-m", "octavo.cli", "serve", model),
        *("--port", str(port), "--grpc-port", str(grpc_port), "--metrics-port", str(metrics_port)),
        *flags,
    ]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"PYTHONSAFEPATH": "1"}
        )
    cluster = Cluster(process, log_path, port, grpc_port, metrics_port, name or model)
    try:
        _wait_until_ready(cluster)
        yield cluster
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            cluster.stop()
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_until_ready(cluster: Cluster) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if cluster.process.poll() is not None:
            raise AssertionError(f"octavo serve ended during start-up:\n{cluster.log}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{cluster.base_url}/ready").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"octavo serve was not ready after {START_TIMEOUT_S} s:\n{cluster.log}")
