"""Tables from processes of their own: what one of them does to its GPU ends with it."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from .report import Row

_MOST_TOLD = 300


def child_rows(name: Row, module: str, arguments: list[str], limit_s: float) -> Iterator[Row]:
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
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
        ):
            watch = threading.Timer(limit_s, process.kill)
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
                process.kill()
        if process.returncode and not has_time:
            yield name | {"error": f"not done after {limit_s:.0f} s"}
        elif process.returncode:
            yield name | {"error": told.read_text()[-_MOST_TOLD:]}


def time_shares(limit_s: float, count: int) -> Iterator[float]:
    """Yield the seconds of one after another; what one leaves, those after it share."""
    ends_s = time.monotonic() + limit_s
    for left in range(count, 0, -1):
        yield max(0.0, ends_s - time.monotonic()) / left


def write_row(row: Row) -> None:
    """Hand a row to the process that reads."""
    print(json.dumps(row), flush=True)
