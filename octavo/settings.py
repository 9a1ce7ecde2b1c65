"""The settings every process has, beside its own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json"]


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
    step_loop_core: Annotated[int | None, Parameter(show=False)] = None
    """Core that the worker's step loop has to itself; set by `octavo serve`."""
    failpoints: Annotated[tuple[str, ...], Parameter(show=False)] = field(default=())
    """For tests: NAME=ACTION with an action of `exit`, `raise` or `delay:SECONDS`."""
