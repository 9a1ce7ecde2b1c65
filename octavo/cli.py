"""The command line: `octavo serve`, what one does with a server, and each process by itself.

A command's module is imported when the command is given, so `octavo --help` stays quick.
"""

import os
import sys
from collections.abc import Mapping

from cyclopts import App, CycloptsError, Parameter

from .config import SOURCES
from .version import VERSION

_COMMANDS = {
    "serve": ("octavo.serve:main", "Serve a model: start and watch the whole cluster here."),
    "chat": ("octavo.chat:main", "Talk to a running server."),
    "complete": ("octavo.complete:main", "Let a running server continue a text."),
    "plan": ("octavo.worker.plan:main", "Say what a model takes and how many requests fit."),
    "doctor": ("octavo.worker.doctor:main", "Check this machine, and say what to do."),
    "health": ("octavo.health:main", "Ask a process whether it is ready."),
    "keys": ("octavo.keys:main", "Make the keys of scheduler and workers over TCP."),
    "gateway": ("octavo.gateway.server:main", "Run the REST gateway, in front of a router."),
    "router": ("octavo.router.server:main", "Run a router: text in, text out, over gRPC."),
    "scheduler": ("octavo.scheduler.server:main", "Run the scheduler of a group of workers."),
    "worker": ("octavo.worker.server:main", "Run a worker: one device's share of the model."),
}

_GROUPS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "bench": (
        "Measure how fast models are served.",
        {
            "serve": ("octavo.bench_serve:main", "Measure a running server, over REST."),
            "throughput": ("octavo.bench_offline:throughput", "Measure many prompts at once."),
            "latency": ("octavo.bench_offline:latency", "Measure how long one batch takes."),
        },
    ),
    "config": (
        "Look at the configuration.",
        {"show": ("octavo.config_show:main", "Print each flag of `octavo serve` with its value.")},
    ),
}

_EPILOGUE = (
    "Every flag can also come from the YAML file given with --config (max-model-len: 4096)"
    " or from the environment (OCTAVO_MAX_MODEL_LEN=4096)."
)


# The status that a shell gives a program that SIGPIPE has ended.
_PIPE_CLOSED = 141


def build_app() -> App:
    app = App(
        name="octavo",
        version=VERSION,
        help="Serves large language models, on GPUs and on CPUs.",
        help_format="plaintext",
        help_epilogue=_EPILOGUE,
        config=SOURCES,
        default_parameter=Parameter(negative_iterable=(), show_default=_shown_default),
        exit_on_error=False,
        print_error=False,
    )
    _add(app, _COMMANDS)
    for position, (name, (does, commands)) in enumerate(_GROUPS.items(), start=len(_COMMANDS)):
        group = App(name=name, help=does, sort_key=position)
        _add(group, commands)
        app.command(group)
    return app


def _shown_default(value: object) -> str | None:
    """Return a flag's default for its help; None where the text says what unset means."""
    return None if value in (None, "", ()) else str(value)


def _add(app: App, commands: Mapping[str, tuple[str, str]]) -> None:
    for position, (name, (target, does)) in enumerate(commands.items()):
        app.command(target, name=name, help=does, sort_key=position)


def main() -> None:
    """Run the command in sys.argv; a mistake in it becomes a line and exit status 2."""
    try:
        try:
            build_app()(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except CycloptsError as error:
        print(f"octavo: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # Who reads our output (`| head`) has read enough; Python would complain again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_PIPE_CLOSED)


if __name__ == "__main__":
    main()
