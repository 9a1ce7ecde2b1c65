"""The settings every process has, beside its own."""

from dataclasses import dataclass, field
from typing import Literal

LogFormat = Literal["console", "json"]


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """Flags that each process takes."""

    log_level: str = "info"
    """Least severe level that is logged: debug, info, warning or error."""
    log_format: LogFormat = "console"
    """Lines for people, or one JSON object a line."""
    ready_fd: int | None = None
    """File descriptor that start-up stages are reported on; set by `octavo serve`."""
    failpoints: tuple[str, ...] = field(default=())
    """For tests: NAME=ACTION with an action of `exit`, `raise` or `delay:SECONDS`."""
