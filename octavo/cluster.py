"""The processes of one cluster: which flags and which sockets each of them gets."""

import dataclasses
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .child_process import ChildCommand
from .cores import step_loop_core
from .ports import join_host_port
from .serve_settings import ServeSettings

# Process → the flags of `octavo serve` that it gets. The order of the processes is that of
# draining: the side of the clients first.
FLAGS = {
    "gateway": ("host", "port", "drain_timeout_s"),
    "router": ("host", "grpc_port", "chat_template", "generation_config", "drain_timeout_s"),
    "scheduler": (
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "scheduling_policy",
        "enable_prefix_caching",
        "async_scheduling",
        "max_num_queued_requests",
        "vllm_metric_names",
        "step_timeout_s",
        "drain_timeout_s",
    ),
    "worker": (
        "device",
        "dtype",
        "quantization",
        "load_format",
        "block_size",
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "gpu_memory_utilization",
        "num_gpu_blocks_override",
        "enforce_eager",
        "cpu_threads",
        "seed",
        "mock",
    ),
}
# Process → how many ports above `--metrics-port` its metrics are; the gateway's are on its own.
METRICS_OFFSETS = {"scheduler": 0, "router": 1, "worker": 2}
# Those that check API keys.
KEYED = ("gateway", "router")
FLAGS_OF_ALL = ("log_level", "log_format", "failpoints")

# Threads that wait by spinning would take the cores of the other processes.
VARIABLES = {"worker": {"OMP_WAIT_POLICY": "PASSIVE"}}

# Where a server that listens on every address is found on this machine.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """What `octavo serve` was asked to run, with every choice made."""

    settings: ServeSettings
    model: Path
    """Directory or `.gguf` file."""
    names: tuple[str, ...]
    """What clients call the model."""
    directory: Path
    """Where the sockets are."""

    @property
    def rest_address(self) -> str:
        return self._address(self.settings.port)

    @property
    def grpc_address(self) -> str:
        return self._address(self.settings.grpc_port)

    def commands(self) -> list[ChildCommand]:
        """Return one command for each process, in the order of draining."""
        return [
            ChildCommand(
                process,
                tuple(self._arguments(process)),
                _environment(process, self.settings.api_key),
            )
            for process in FLAGS
        ]

    def command_lines(self) -> list[str]:
        """Return the commands as one would type them."""
        lines = []
        for command in self.commands():
            variables = [f"{name}={value}" for name, value in _variables(command.name).items()]
            lines.append(" ".join([*variables, shlex.join(command.arguments)]))
        return lines

    def _arguments(self, process: str) -> Iterator[str]:
        # -P: in a checkout the working directory holds folders called like other people's packages.
        yield from (sys.executable, "-P", "-m", "octavo.cli", process)
        for name, value in self._wiring(process).items():
            yield from _flags(name, value)
        core = step_loop_core(self.settings.device, self.settings.cpu_threads)
        yield from _flags("step_loop_core", core)
        for name in (*FLAGS[process], *FLAGS_OF_ALL):
            yield from _flags(name, getattr(self.settings, name))

    def _wiring(self, process: str) -> dict[str, Any]:
        """Return the flags that connect the process with the others."""
        scheduler = f"unix:{self.directory}/scheduler.sock"
        workers = f"ipc://{self.directory}/workers.sock"
        wiring: dict[str, dict[str, Any]] = {
            "gateway": {"router": self.grpc_address},
            "router": {"scheduler": scheduler},
            "scheduler": {
                "listen": scheduler,
                "worker_endpoint": workers,
                "served_model_name": self.names,
            },
            "worker": {"model": self.model, "scheduler_endpoint": workers},
        }
        ports = metrics_ports(self.settings)
        return wiring[process] | ({"metrics_port": ports[process]} if process in ports else {})

    def _address(self, port: int) -> str:
        host = self.settings.host
        return join_host_port(_LOOPBACK.get(host, host), port)


def metrics_ports(settings: ServeSettings) -> dict[str, int]:
    """Return the port of each process that has one for its metrics."""
    if not settings.metrics_port:
        return {}
    return {name: settings.metrics_port + offset for name, offset in METRICS_OFFSETS.items()}


def _flags(name: str, value: Any) -> Iterator[str]:
    """Spell one setting as it stands on a command line; None is left out."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        yield flag if value else flag.replace("--", "--no-", 1)
    elif isinstance(value, tuple):
        for item in value:
            yield from (flag, str(item))
    elif value is not None:
        yield from (flag, str(value))


def _environment(process: str, api_keys: Sequence[str]) -> dict[str, str]:
    """Return our environment without the flags in it: a child has them on its command line.

    All but the keys, which everybody on this machine could read there.
    """
    ours = {f"OCTAVO_{field.name.upper()}" for field in dataclasses.fields(ServeSettings)}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    if api_keys and process in KEYED:
        environment["OCTAVO_API_KEY"] = " ".join(api_keys)
    return environment | _variables(process)


def _variables(process: str) -> dict[str, str]:
    return VARIABLES.get(process, {})
