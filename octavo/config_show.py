"""`octavo config show`: what `octavo serve` would be told, and by whom."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter, Token

from .cli import build_app
from .config import SOURCES
from .serve_settings import ServeSettings
from .settings import ProcessSettings

# Set by `octavo serve` itself, or for tests.
_HIDDEN = {"ready_fd", "step_loop_core", "failpoints", "mock"}
_SECRET = {"api_key"}

_COMMON = {field.name for field in dataclasses.fields(ProcessSettings)}

_ANY_MODEL = "MODEL"


def main(
    *flags: Annotated[str, Parameter(allow_leading_hyphen=True)],
    origin: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Print each flag of `octavo serve` with its value.

    Parameters
    ----------
    flags:
        Flags as they would be given to `octavo serve`.
    origin:
        Say where each value comes from, too.
    """
    try:
        settings, origins = resolve_settings(flags)
    except CycloptsError as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 2
    print(*_lines(settings, origins if origin else None), sep="\n")
    return 0


def resolve_settings(flags: Sequence[str]) -> tuple[ServeSettings, dict[str, str]]:
    """Return the settings that `octavo serve` would have, and flag → origin of those given.

    Raises CycloptsError as `octavo serve` would.
    """
    origins: dict[str, str] = {}

    def note_origins(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        for argument in arguments:
            if argument.tokens:
                origins[argument.name] = _origin(argument.tokens[0])

    app = build_app()
    app.config = (*SOURCES, note_origins)
    _, bound, _ = app.parse_args(["serve", _ANY_MODEL, *flags])
    return bound.arguments.get("settings", ServeSettings()), origins


def _origin(token: Token) -> str:
    match token.source:
        case "cli":
            return "command line"
        case "env":
            return f"environment, {token.keyword}"
        case path:
            return path


def _lines(settings: ServeSettings, origins: Mapping[str, str] | None) -> Iterator[str]:
    rows = []
    # The flags that every process has come last.
    for field in sorted(dataclasses.fields(settings), key=lambda field: field.name in _COMMON):
        if field.name not in _HIDDEN:
            flag = "--" + field.name.replace("_", "-")
            value = _shown(field.name, getattr(settings, field.name))
            rows.append((flag, value, "" if origins is None else origins.get(flag, "default")))
    flag_width, value_width = (max(len(row[i]) for row in rows) for i in (0, 1))
    for flag, value, source in rows:
        yield f"{flag:<{flag_width}}  {value:<{value_width}}  {source}".rstrip()


def _shown(name: str, value: Any) -> str:
    if value is None or value == ():
        return "unset"
    if name in _SECRET:
        return "(hidden)"
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(value) if isinstance(value, tuple) else str(value)
