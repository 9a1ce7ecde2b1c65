"""Engines behind HTTP, all asked by one client: `octavo serve`, `vllm serve` and llama-server."""

import contextlib
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.octavo_server import free_ports

from .client import SERVED_MODEL, Client
from .engines import Engine, octavo_model
from .installation import Installation
from .measurement import Run
from .process_group import EngineFailed, ProcessGroup
from .workloads import Request, ServedWorkload, Workload

_START_TIMEOUT_S = 300.0
_POLL_S = 0.2
_LLAMA_CPP_STREAMS = 64
_LLAMA_CPP_STREAM_TOKENS = 512


class Server:
    """A server that is started once, and paused while another is measured."""

    warms_itself = False

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        port: int,
        ready_path: str,
        client: Client,
        directory: Path,
    ) -> None:
        self._command = command
        self._environment = environment
        self._url = f"http://127.0.0.1:{port}"
        self._ready_path = ready_path
        self._client = client
        self._directory = directory
        self._group: ProcessGroup | None = None

    def start(self) -> None:
        log = self._directory / "server.log"
        self._group = ProcessGroup(self._command, self._environment, log, is_driven=False)
        self._wait_until_ready(self._group)
        self._group.pause()

    def run(self, workload: Workload, requests: Sequence[Request], seed: int) -> Run:
        assert isinstance(workload, ServedWorkload) and self._group is not None
        self._group.resume()
        try:
            return self._client.run(self._url, workload, seed)
        finally:
            self._group.pause()

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop()

    def _wait_until_ready(self, group: ProcessGroup) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if group.process.poll() is not None:
                raise group.failure()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(self._url + self._ready_path).close()
                return
            time.sleep(_POLL_S)
        raise EngineFailed(f"{self._command[0]} was not ready within {_START_TIMEOUT_S:.0f} s")


def make_server(name: str, peers: Installation, directory: Path, client: Client) -> Engine:
    """Return the server called `engine:format`; raises EngineFailed where there is none."""
    (port,) = free_ports(1)
    ready_path = "/health"
    environment: Mapping[str, str] = {}
    engine, _, kind = name.partition(":")
    match engine, kind:
        case "octavo", _:
            command = _octavo_command(kind, peers, port)
            ready_path = "/ready"
        case "vllm", ("bf16" | "w8a8"):
            command = [peers.vllm_command("vllm"), "serve", str(peers.checkpoint(kind))]
            command += [
                "--port",
                str(port),
                "--dtype",
                "bfloat16",
                "--served-model-name",
                SERVED_MODEL,
            ]
            environment = peers.vllm_environment()
        case "llama.cpp", ("bf16" | "q8_0" | "q4_0" | "q4_1"):
            command = _llama_server_command(peers, kind, port)
        case _:
            raise EngineFailed(f"there is no server {name!r}")
    return Server(
        command,
        environment,
        port=port,
        ready_path=ready_path,
        client=client,
        directory=directory,
    )


def _octavo_command(kind: str, peers: Installation, port: int) -> list[str]:
    model, dtype, options = octavo_model(kind, peers)
    command = [sys.executable, "-m", "octavo.cli", "serve", model, "--port", str(port)]
    command += [
        "--grpc-port",
        str(*free_ports(1)),
        "--dtype",
        dtype,
        "--served-model-name",
        SERVED_MODEL,
    ]
    for option, value in options.items():
        command += [f"--{option.replace('_', '-')}", str(value)]
    return command


def _llama_server_command(peers: Installation, kind: str, port: int) -> list[str]:
    threads = str(os.cpu_count())
    command = [peers.llama_cpp_command("llama-server"), "-m", str(peers.gguf(kind))]
    command += [
        "--port",
        str(port),
        "--alias",
        SERVED_MODEL,
        "-fa",
        "on",
        "-t",
        threads,
        "-tb",
        threads,
    ]
    command += ["-np", str(_LLAMA_CPP_STREAMS)]
    return [*command, "-c", str(_LLAMA_CPP_STREAMS * _LLAMA_CPP_STREAM_TOKENS)]
