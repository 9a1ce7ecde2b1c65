"""The settings every process has, beside its own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import CycloptsError, Parameter

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]

_API_KEY = re.compile(r"[!-~]+")
"""What a header can carry. An empty key would be none, and one with a space two."""


def check_api_keys(_: object, keys: Sequence[str]) -> None:
    """Raise for a key that could never be sent, in a sentence that does not show it."""
    if not all(map(_API_KEY.fullmatch, keys)):
        raise CycloptsError(
            msg="--api-key: a key is at least one ASCII character, without spaces; choose another."
        )


ApiKeyFlag = Annotated[tuple[str, ...], Parameter(validator=check_api_keys)]


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """Flags that each process takes."""

    log_level: LogLevel = "info"
    """Least severe level that is logged."""
    log_format: LogFormat = "console"
    """Lines for people, or one JSON object a line."""
    config: Path | None = None
    """YAML file that gives flags; the command line and the environment go before it."""
    ready_fd: Annotated[int | None, Parameter(show=False)] = None
    """File descriptor that start-up stages are reported on; set by `octavo serve`."""
    failpoints: Annotated[tuple[str, ...], Parameter(show=False)] = field(default=())
    """For tests: NAME=ACTION with an action of `exit`, `raise` or `delay:SECONDS`."""
