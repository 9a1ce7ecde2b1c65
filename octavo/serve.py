"""`octavo serve`: finds the model, checks the ports, and runs the cluster until a signal."""

import asyncio
import json
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .client_settings import ClientSettings
from .cluster import FLAGS, Cluster, metrics_ports
from .console import Console, make_console
from .model_files import locate_model, resolve_model
from .ports import check_port_is_free
from .restart_policy import RestartPolicy
from .run_directory import run_directory
from .serve_settings import ServeSettings
from .startup import StartupError
from .supervisor import Supervisor

# A process that used up its own limit for draining still needs a moment to close.
_CLOSING_S = 5.0

_SERVE = "serve"


def main(
    model: str, *, settings: Annotated[ServeSettings, Parameter(name="*")] = ServeSettings()
) -> int:
    """Serve a model: start and watch the whole cluster on this machine.

    Parameters
    ----------
    model:
        A directory with config.json and safetensors files, a .gguf file, an id on the Hugging Face
        hub (owner/name or owner/name:file.gguf), or `demo`.
    """
    console = make_console(settings.log_format, sys.stderr, (_SERVE, *FLAGS))
    names = settings.served_model_name or (model,)
    try:
        if settings.dry_run:
            directory = Path(tempfile.gettempdir()) / "octavo"
            cluster = Cluster(settings, locate_model(model, settings.revision), names, directory)
            print(*cluster.command_lines(), sep="\n")
            return 0
        return _serve(model, names, settings, console)
    except StartupError as error:
        console.say(f"octavo: {error}")
        return 1


def _serve(model: str, names: tuple[str, ...], settings: ServeSettings, console: Console) -> int:
    """Run the cluster; return the exit status."""
    started_s = time.monotonic()
    _check_ports_differ(settings)
    check_port_is_free(settings.host, settings.port, "--port")
    check_port_is_free(settings.host, settings.grpc_port, "--grpc-port")
    for port in metrics_ports(settings).values():
        check_port_is_free("127.0.0.1", port, "--metrics-port")
    path = resolve_model(
        model, console.say, revision=settings.revision, is_offline=settings.offline
    )
    console.stage(_SERVE, f"model is {path}", time.monotonic() - started_s)
    with run_directory() as directory:
        cluster = Cluster(settings, path, names, directory)
        supervisor = Supervisor(
            cluster.commands(),
            console,
            end_timeout_s=settings.drain_timeout_s + _CLOSING_S,
            restarts=RestartPolicy(),
        )

        def announce() -> None:
            console.say(_announcement(cluster, time.monotonic() - started_s))

        has_drained = asyncio.run(supervisor.run(announce))
    return 0 if has_drained else 1


def _check_ports_differ(settings: ServeSettings) -> None:
    """Raise StartupError for two flags that ask for one port."""
    asked = [("--port", settings.port), ("--grpc-port", settings.grpc_port)]
    for offset, port in enumerate(metrics_ports(settings).values()):
        asked.append((f"--metrics-port + {offset}" if offset else "--metrics-port", port))
    flags: dict[int, str] = {}
    for flag, port in asked:
        if flags.setdefault(port, flag) != flag:
            raise StartupError(f"{flags[port]} and {flag} are both {port}; choose two ports.")


def _announcement(cluster: Cluster, seconds: float) -> str:
    """Return what a newcomer needs: the addresses, the name, and two commands to paste."""
    question = {
        "model": cluster.names[0],
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
    }
    address = f"http://{cluster.rest_address}"
    curl = ["curl", f"{address}/v1/chat/completions", "-H", "Content-Type: application/json"]
    # The key itself would stay in a terminal's history.
    key = ' -H "Authorization: Bearer $OCTAVO_API_KEY"' if cluster.settings.api_key else ""
    chat = [_own_name(), "chat", *([] if address == ClientSettings.url else ["--url", address])]
    return f"""\

Ready in {seconds:.1f} s. {", ".join(cluster.names)} is served at
  REST  {address}/v1
  gRPC  {cluster.grpc_address}

{shlex.join(chat)}
{shlex.join(curl)}{key} -d {shlex.quote(json.dumps(question))}
"""


def _own_name() -> str:
    """Return how one types `octavo` here: with its path, where it is not found without."""
    name = Path(sys.argv[0]).name
    return sys.argv[0] if name == "octavo" and shutil.which(name) is None else "octavo"
