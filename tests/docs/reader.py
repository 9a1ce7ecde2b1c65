"""Somebody who follows the documents: a shell at the root of the repository, with free ports."""

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.docs.commands import ROOT
from tests.end_to_end.cluster import START_TIMEOUT_S, STOP_TIMEOUT_S, free_port

TIMEOUT_S = 240

_BASH = ("bash", "-euo", "pipefail", "-c")
# What chat asks with.
_PROMPT = "> "
_ESCAPE = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")
_READ_BYTES = 4096


@dataclass(frozen=True)
class Reader:
    """Runs commands; those of Octavo find ports and sizes in the environment."""

    names: dict[str, str]
    """What stands for {port}, {grpc_port} and {folder}."""
    environment: dict[str, str]
    results_path: Path
    """Where benchmarks write."""

    def take_results(self) -> str:
        """Return, once, what a benchmark has written."""
        if not self.results_path.exists():
            return ""
        text = self.results_path.read_text()
        self.results_path.unlink()
        return text

    def shell(self, text: str) -> str:
        """Return what the command prints, errors included; fails if it does."""
        return self._run([*_BASH, text])

    def python(self, text: str) -> str:
        """Return what the program prints."""
        return self._run([sys.executable, "-c", text])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environment,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def conversation(self, text: str, lines: Sequence[str]) -> str:
        """Run a command in a terminal, type a line at each prompt; return what the screen shows."""
        keyboard, terminal = pty.openpty()
        process = subprocess.Popen(
            [*_BASH, text],
            stdin=terminal, stdout=terminal, stderr=terminal,
            cwd=ROOT, env=self.environment, start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        try:
            screen = ""
            for line in lines:
                screen += _read(keyboard, _PROMPT)
                os.write(keyboard, line.encode() + b"\n")
            screen += _read(keyboard, None)
            assert process.wait(TIMEOUT_S) == 0, screen
        finally:
            process.kill()
            process.wait()
            os.close(keyboard)
        return screen


def _read(terminal: int, end: str | None) -> str:
    """Return what the terminal shows until it ends with `end`, or until all programs have left."""
    shown = b""
    while end is None or not _plain(shown).endswith(end):
        assert select.select([terminal], [], [], TIMEOUT_S)[0], f"{end!r} did not come: {shown!r}"
        # Linux answers with an error, not with an end of file, when nobody is at the other end.
        try:
            shown += os.read(terminal, _READ_BYTES)
        except OSError:
            assert end is None, _plain(shown)
            break
    return _plain(shown)


def _plain(shown: bytes) -> str:
    return _ESCAPE.sub("", shown.decode(errors="replace"))


@contextlib.contextmanager
def served(folder: Path, sizes: Mapping[str, str]) -> Iterator[tuple[Reader, str]]:
    """Run `make serve`; yield what it said until it was ready, too, and end it with Ctrl-C."""
    port, grpc_port = str(free_port()), str(free_port())
    log_path, results_path = folder / "serve.log", folder / "results.json"
    environment = {
        **os.environ,
        **sizes,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OCTAVO_PORT": port,
        "OCTAVO_GRPC_PORT": grpc_port,
        "OCTAVO_URL": f"http://127.0.0.1:{port}",
        "OCTAVO_OUTPUT_JSON": str(results_path),
        # Tables are as wide as what is in them.
        "COLUMNS": "120",
    }
    with log_path.open("wb") as log:
        make = subprocess.Popen(
            ["make", "serve"], stdout=log, stderr=log,
            cwd=ROOT, env=environment, start_new_session=True,
        )  # fmt: skip
    try:
        announcement = _wait_until_ready(make, log_path)
        names = {"{port}": port, "{grpc_port}": grpc_port, "{folder}": str(folder)}
        yield Reader(names, environment, results_path), announcement
    finally:
        # Ctrl-C reaches every process of the terminal.
        os.killpg(make.pid, signal.SIGINT)
        try:
            make.wait(STOP_TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(make.pid, signal.SIGKILL)


def _wait_until_ready(make: "subprocess.Popen[bytes]", log_path: Path) -> str:
    """Return what it printed."""
    deadline = time.monotonic() + START_TIMEOUT_S
    # The last of what it says.
    while not re.search(r"^curl .*\n", shown := log_path.read_text(), re.MULTILINE):
        assert make.poll() is None, f"make serve ended:\n{shown}"
        assert time.monotonic() < deadline, f"make serve is not ready:\n{shown}"
        time.sleep(0.05)
    return shown
