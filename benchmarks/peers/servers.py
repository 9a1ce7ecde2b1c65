"""Engines behind HTTP, all asked by one client: `octavo serve`, `vllm serve` and llama-server.

The client, `vllm bench serve`, and everything it measures share the same cores.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.bench_serving_path import free_port

from .engines import Engine, octavo_model
from .installation import Installation
from .measurement import Run
from .process_group import EngineFailed, ProcessGroup
from .workloads import Request, ServedWorkload, Workload

_MODEL = "model"
_START_TIMEOUT_S = 300.0
_POLL_S = 0.2
_LLAMA_CPP_STREAMS = 64
_LLAMA_CPP_STREAM_TOKENS = 512
_LATENCIES = ("mean_ttft_ms", "p99_ttft_ms", "mean_tpot_ms", "mean_itl_ms", "p99_itl_ms")


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
        client: "Client",
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
        done = self._client.run(self._url, workload, seed)
        self._group.pause()
        return done

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


class Client:
    """`vllm bench serve`: random prompts, of which each seed has others."""

    def __init__(self, vllm: str, tokenizer: Path, directory: Path) -> None:
        self._vllm = vllm
        self._tokenizer = tokenizer
        self._directory = directory

    def run(self, url: str, workload: ServedWorkload, seed: int) -> Run:
        result = self._directory / "served.json"
        result.unlink(missing_ok=True)
        options = {
            "--backend": "vllm",
            "--base-url": url,
            "--model": _MODEL,
            "--served-model-name": _MODEL,
            "--tokenizer": str(self._tokenizer),
            "--dataset-name": "random",
            "--random-input-len": str(workload.input_len),
            "--random-output-len": str(workload.output_len),
            "--num-prompts": str(workload.num_requests),
            "--max-concurrency": str(workload.concurrency),
            "--request-rate": f"{workload.request_rate:g}",
            "--seed": str(seed + 1000),
            "--temperature": "0",
            "--result-dir": str(result.parent),
            "--result-filename": result.name,
        }
        command = [self._vllm, "bench", "serve", "--ignore-eos", "--save-result", "--disable-tqdm"]
        command += [word for pair in options.items() for word in pair]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode or not result.exists():
            raise EngineFailed(f"vllm bench serve failed:\n{done.stderr[-2000:]}")
        found = json.loads(result.read_text())
        return Run(
            duration_s=found["duration"],
            num_input_tokens=found["total_input_tokens"],
            num_output_tokens=found["total_output_tokens"],
            latencies_ms={name: round(found[name], 2) for name in _LATENCIES if name in found},
        )


def make_server(name: str, peers: Installation, directory: Path) -> Engine:
    """Return the server called `engine:format`; raises EngineFailed where there is none."""
    client = Client(peers.vllm_command("vllm"), peers.checkpoint("bf16"), directory)
    port = free_port()
    ready_path = "/health"
    environment: Mapping[str, str] = {}
    engine, _, kind = name.partition(":")
    match engine, kind:
        case "octavo", _:
            command = _octavo_command(kind, peers, port)
            ready_path = "/ready"
        case "vllm", ("bf16" | "w8a8"):
            command = [peers.vllm_command("vllm"), "serve", str(peers.checkpoint(kind))]
            command += ["--port", str(port), "--dtype", "bfloat16", "--served-model-name", _MODEL]
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
    command += ["--grpc-port", str(free_port()), "--dtype", dtype, "--served-model-name", _MODEL]
    for option, value in options.items():
        command += [f"--{option}", value]
    return command


def _llama_server_command(peers: Installation, kind: str, port: int) -> list[str]:
    threads = str(os.cpu_count())
    command = [peers.llama_cpp_command("llama-server"), "-m", str(peers.gguf(kind))]
    command += ["--port", str(port), "--alias", _MODEL, "-fa", "on", "-t", threads, "-tb", threads]
    command += ["-np", str(_LLAMA_CPP_STREAMS)]
    return [*command, "-c", str(_LLAMA_CPP_STREAMS * _LLAMA_CPP_STREAM_TOKENS)]
