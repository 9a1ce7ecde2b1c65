"""Tables from processes of their own: what one of them does to its GPU ends with it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from .report import Row

# Letters: of the error in the table, and of all that the process said in the file.
_ERROR_LENGTH, _MOST_TOLD = 300, 6000


def child_rows(
    name: Row, module: str, arguments: list[str], limit_s: float
) -> Generator[Row, None, None]:
    """Yield the rows that a module writes, each a line of JSON, as they come.

    A wrong end is a row too, and so is one that does not come in time.

    Args:
        name: begins the row of a wrong end.
        module: of this folder.
    """
    command = [sys.executable, "-m", f"{__package__}.{module}", *arguments]
    with TemporaryDirectory() as folder:
        told = Path(folder) / "stderr"
        with (
            told.open("w") as stderr,
            # A group of its own: what it has started ends with it.
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, process_group=0
            ) as process,
        ):
            watch = threading.Timer(limit_s, _end, [process])
            watch.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    # Libraries print there, too.
                    if line.startswith("{"):
                        yield json.loads(line)
                process.wait()
                has_time = watch.is_alive()
            finally:
                watch.cancel()
                # Nobody reads on where the rows are no longer wanted.
                _end(process)
        if process.returncode:
            said = told.read_text(errors="replace")
            error = said[-_ERROR_LENGTH:] if has_time else f"not done after {limit_s:.0f} s"
            yield name | {"error": error, "stderr": [said[-_MOST_TOLD:]]}


def _end(process: "subprocess.Popen[str]") -> None:
    """End a process and all of its group; the number is nobody else's before it is waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def time_shares(limit_s: float, weights: Sequence[float]) -> Iterator[float]:
    """Yield the seconds of one after another, by their weights.

    What one leaves, those after it share.
    """
    ends_s = time.monotonic() + limit_s
    for number, weight in enumerate(weights):
        left_s = max(0.0, ends_s - time.monotonic())
        yield left_s * weight / sum(weights[number:])


def write_row(row: Row) -> None:
    """Hand a row to the process that reads."""
    print(json.dumps(row), flush=True)
