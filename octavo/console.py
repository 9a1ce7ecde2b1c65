"""The one writer of `octavo serve`: every line of every process, whole and named."""

import json
from typing import Any, Protocol, TextIO

from .settings import LogFormat
from .terminal import has_color

_COLORS = (36, 35, 34, 33, 32)
"""ANSI colours of the prefixes: cyan, magenta, blue, yellow, green."""


class Console(Protocol):
    """What `octavo serve` shows."""

    def log(self, process: str, line: str) -> None:
        """Show a line that `process` wrote, or that is about it."""

    def stage(self, process: str, text: str, seconds: float) -> None:
        """Show that a stage of the start is done."""

    def say(self, text: str) -> None:
        """Show something about the cluster as a whole; `text` may have several lines."""


class TextConsole:
    """Lines for people: the process in front, in colour on a terminal."""

    def __init__(self, stream: TextIO, processes: tuple[str, ...]) -> None:
        self._stream = stream
        width = max(map(len, processes))
        self._prefixes = {name: name.ljust(width) for name in processes}
        if has_color(stream):
            for color, name in zip(_COLORS, processes, strict=False):
                self._prefixes[name] = f"\x1b[{color}m{self._prefixes[name]}\x1b[0m"
        self._num_stages = 0

    def log(self, process: str, line: str) -> None:
        self._write(f"{self._prefixes[process]} | {line}")

    def stage(self, process: str, text: str, seconds: float) -> None:
        self._num_stages += 1
        self._write(f"{self._prefixes[process]} | [{self._num_stages:>2}] {text} ({seconds:.2f} s)")

    def say(self, text: str) -> None:
        self._write(text)

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


class JSONConsole:
    """One JSON object a line: what a process logged, with its name added."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def log(self, process: str, line: str) -> None:
        self._write({"process": process, **_fields(line)})

    def stage(self, process: str, text: str, seconds: float) -> None:
        self._write({"process": process, "stage": text, "seconds": seconds})

    def say(self, text: str) -> None:
        self._write({"process": "serve", "event": text})

    def _write(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()


def make_console(log_format: LogFormat, stream: TextIO, processes: tuple[str, ...]) -> Console:
    return JSONConsole(stream) if log_format == "json" else TextConsole(stream, processes)


def _fields(line: str) -> dict[str, Any]:
    """Return the record that `line` is; another line, such as a library's, becomes an event."""
    try:
        record = json.loads(line)
    except ValueError:
        return {"event": line}
    return record if isinstance(record, dict) else {"event": line}
