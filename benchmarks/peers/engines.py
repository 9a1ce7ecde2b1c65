"""Engines without a network: Octavo, vLLM, transformers and llama.cpp, each in its own process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .installation import Installation
from .measurement import Run
from .process_group import EngineFailed, ProcessGroup
from .workloads import Request, Workload

KV_CACHE_BYTES = 1 << 30
"""Octavo's here: as much as it has brought into use when it is warm. vLLM fills its own with zeros
as it starts; Octavo asks the system for memory as it is wanted, and where that takes 3 ms for each
MiB (measured on a small virtual machine, 2026-11), a turn would pay for what the next one has."""

_LLAMA_CPP_MOST_SEQUENCES = 256


class Engine(Protocol):
    """An engine in one number format. Started once, then paused but for its turns."""

    @property
    def warms_itself(self) -> bool:
        """Whether each turn is a process that warms up before it measures."""

    def start(self) -> None: ...

    def run(self, workload: Workload, requests: Sequence[Request], seed: int) -> Run:
        """Do the workload: `requests` where there is no network, else random ones of `seed`."""

    def stop(self) -> None: ...


class DrivenEngine:
    """An engine whose offline API one of the drivers calls."""

    warms_itself = False

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> None:
        self._command = command
        self._environment = environment
        self._directory = directory
        self._group: ProcessGroup | None = None

    def start(self) -> None:
        log = self._directory / "engine.log"
        self._group = ProcessGroup(self._command, self._environment, log, is_driven=True)
        self._answer()
        self._group.pause()

    def run(self, workload: Workload, requests: Sequence[Request], seed: int) -> Run:
        path = self._directory / "requests.json"
        path.write_text(json.dumps([[r.prompt_token_ids, r.output_len] for r in requests]))
        return Run(**self.call("generate", requests=str(path)))

    def call(self, operation: str, **arguments: Any) -> Any:
        """Run an operation of the driver while everything else is paused; return its answer."""
        assert self._group is not None and self._group.process.stdin is not None
        self._group.resume()
        call = {"operation": operation, "arguments": arguments}
        self._group.process.stdin.write(json.dumps(call) + "\n")
        self._group.process.stdin.flush()
        answer = self._answer()
        self._group.pause()
        return answer

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop()

    def _answer(self) -> Any:
        assert self._group is not None and self._group.process.stdout is not None
        line = self._group.process.stdout.readline()
        if not line:
            raise self._group.failure()
        return json.loads(line)


@contextlib.contextmanager
def running_octavo(model: str, dtype: str, options: Mapping[str, object]) -> Iterator[DrivenEngine]:
    """Run LLM in a process of its own, paused but for its turns.

    `options` are of LLM; the KV cache has KV_CACHE_BYTES unless they say otherwise.
    """
    # What is paused would outlive a process that just ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    command = octavo_command(model, dtype, {"kv_cache_memory_bytes": KV_CACHE_BYTES, **options})
    with tempfile.TemporaryDirectory() as directory:
        engine = DrivenEngine(command, {}, Path(directory))
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


class LlamaCppBatch:
    """llama-batched-bench: all prompts as one batch, then all outputs side by side.

    It draws its own random prompts and times after its own warm-up; loading does not count.
    """

    warms_itself = True

    def __init__(self, command: str, gguf: Path) -> None:
        self._command = command
        self._gguf = gguf

    def start(self) -> None:
        """Do nothing: each turn is a process."""

    def run(self, workload: Workload, requests: Sequence[Request], seed: int) -> Run:
        count, prompt_len, output_len = _uniform(requests)
        threads = str(os.cpu_count())
        sizes = {
            "-m": str(self._gguf),
            "-npp": str(prompt_len),
            "-ntg": str(output_len),
            "-npl": str(count),
            "-c": str(count * (prompt_len + output_len)),
            "-t": threads,
            "-tb": threads,
            "-fa": "on",
            "--output-format": "jsonl",
        }
        command = [self._command, *(word for pair in sizes.items() for word in pair)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode or not lines:
            raise EngineFailed(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        row = json.loads(lines[-1])
        return Run(
            duration_s=row["t"],
            num_input_tokens=row["pl"] * row["pp"],
            num_output_tokens=row["pl"] * row["tg"],
        )

    def stop(self) -> None:
        """Do nothing."""


def _uniform(requests: Sequence[Request]) -> tuple[int, int, int]:
    """Return count, prompt length and output length, which llama-batched-bench wants alike."""
    lengths = {(len(request.prompt_token_ids), request.output_len) for request in requests}
    if len(lengths) > 1 or len(requests) > _LLAMA_CPP_MOST_SEQUENCES:
        raise EngineFailed(
            "llama-batched-bench runs requests of one length, at most "
            f"{_LLAMA_CPP_MOST_SEQUENCES} of them"
        )
    ((prompt_len, output_len),) = lengths
    return len(requests), prompt_len, output_len


def driver_command(python: str, driver: str, *arguments: str) -> list[str]:
    return [python, "-m", f"benchmarks.peers.{driver}", *arguments]


def octavo_command(model: str, dtype: str, options: Mapping[str, object]) -> list[str]:
    return driver_command(sys.executable, "octavo_driver", model, dtype, json.dumps(options))


def make_offline(name: str, peers: Installation, directory: Path) -> Engine:
    """Return the engine called `engine:format`; raises EngineFailed where there is none."""
    engine, _, kind = name.partition(":")
    match engine, kind:
        case "octavo", _:
            return DrivenEngine(octavo_command(*octavo_model(kind, peers)), {}, directory)
        case "vllm", ("bf16" | "w8a8"):
            python, model = peers.vllm_command("python"), str(peers.checkpoint(kind))
            command = driver_command(python, "vllm_driver", model, "bfloat16")
            return DrivenEngine(command, peers.vllm_environment(), directory)
        case "transformers", ("bf16" | "float32"):
            model = str(peers.checkpoint("bf16"))
            dtype = "bfloat16" if kind == "bf16" else kind
            command = driver_command(sys.executable, "transformers_driver", model, dtype)
            return DrivenEngine(command, {}, directory)
        case "llama.cpp", ("bf16" | "q8_0" | "q4_0" | "q4_1"):
            return LlamaCppBatch(peers.llama_cpp_command("llama-batched-bench"), peers.gguf(kind))
    raise EngineFailed(f"there is no engine {name!r}")


def octavo_model(kind: str, peers: Installation) -> tuple[str, str, dict[str, str | int]]:
    """Return model, dtype and further options of LLM for one of Octavo's formats.

    bf16 dequantizes the demo model; int8 and int4 quantize it as it is loaded; q4_1, q4_0 and q8_0
    compute with the blocks of that GGUF file.
    """
    options: dict[str, str | int] = {"kv_cache_memory_bytes": KV_CACHE_BYTES}
    match kind:
        case "bf16":
            return "demo", "bfloat16", options
        case "int8" | "int4":
            return "demo", "bfloat16", options | {"quantization": kind}
        case "q4_1" | "q4_0" | "q8_0":
            return str(peers.gguf(kind)), "bfloat16", options | {"quantization": "gguf"}
    raise EngineFailed(f"octavo has no format {kind!r}")
