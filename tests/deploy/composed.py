"""Starts the services of compose.yaml as Compose would, each in a network namespace of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from octavo.model_files import demo_model_path
from tests.deploy.compose_file import SECRETS_AT, Service
from tests.deploy.network_lab import Host, NetworkLab

_BIN = Path(sys.executable).parent
_START_TIMEOUT_S = 120
_STOP_TIMEOUT_S = 45
_POLL_S = 1.0


class Composed:
    """The services, once they run.

    Attributes:
        hosts: service → where it runs.
    """

    def __init__(
        self, lab: NetworkLab, services: Mapping[str, Service], secrets: Path, logs: Path
    ) -> None:
        self._services = services
        self._secrets = secrets
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._healthy: set[str] = set()
        self.hosts: dict[str, Host] = {
            name: lab.add_host(name, {net: service.names_on(net) for net in service.networks})
            for name, service in services.items()
        }

    def up(self) -> None:
        """Start each service once what it depends on is as far as it asks; wait for health."""
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        waiting = dict(self._services)
        while waiting or not all(self._is_healthy(name) for name in self._services):
            for name, service in list(waiting.items()):
                if all(self._is_met(*wanted) for wanted in service.dependencies.items()):
                    self._start(waiting.pop(name))
            self._check_that_all_run(deadline_s)
            time.sleep(_POLL_S)

    def down(self) -> dict[str, int]:
        """Stop all services with SIGTERM; returns their exit statuses."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        return {name: process.returncode for name, process in self._processes.items()}

    def log(self, name: str) -> str:
        return (self._logs / f"{name}.log").read_text()

    def run(
        self, host: Host, *arguments: str, text: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on a host of the lab, with `text` as its input."""
        command = host.command(arguments)
        return subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=60, env=environment({})
        )

    def _start(self, service: Service) -> None:
        command = self.hosts[service.name].command(service.arguments, self._mounts(service))
        with (self._logs / f"{service.name}.log").open("wb") as log:
            self._processes[service.name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(service.environment),
            )

    def _mounts(self, service: Service) -> dict[str, str]:
        mounts = {f"{SECRETS_AT}/{name}": str(self._secrets / name) for name in service.secrets}
        # The volume is filled already: with the demo model and the kernels of this machine.
        cache = demo_model_path().parent.parent
        return mounts | {target: str(cache) for _, target in service.volumes}

    def _is_met(self, name: str, condition: str) -> bool:
        process = self._processes.get(name)
        if process is None:
            return False
        match condition:
            case "service_started":
                return True
            case "service_completed_successfully":
                return process.poll() == 0
            case "service_healthy":
                return self._is_healthy(name)
        raise AssertionError(f"{name}: unknown condition {condition}")

    def _is_healthy(self, name: str) -> bool:
        check = self._services[name].health_check
        if check is None:
            return True
        # Asking costs a start of Python; who was healthy once is not asked again.
        if name not in self._healthy and name in self._processes:
            if self.run(self.hosts[name], *check).returncode == 0:
                self._healthy.add(name)
        return name in self._healthy

    def _check_that_all_run(self, deadline_s: float) -> None:
        for name, process in self._processes.items():
            is_over = process.poll() is not None
            if is_over and (process.returncode or self._services[name].health_check):
                raise AssertionError(f"{name} ended with {process.returncode}:\n{self.log(name)}")
        if time.monotonic() > deadline_s:
            logs = "\n".join(f"{name}:\n{self.log(name)}" for name in self._processes)
            raise AssertionError(f"not all healthy after {_START_TIMEOUT_S} s\n{logs}")


@contextlib.contextmanager
def composed(
    lab: NetworkLab, services: Mapping[str, Service], secrets: Path, logs: Path
) -> Iterator[Composed]:
    """Yield the services, not started yet; whatever happens, none of them outlives the block."""
    cluster = Composed(lab, services, secrets, logs)
    try:
        yield cluster
    finally:
        cluster.down()


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what a container has: little, and what file and image say."""
    search = f"{_BIN}:{os.environ['PATH']}"
    return {"PATH": search, "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONSAFEPATH": "1"} | dict(
        variables
    )
