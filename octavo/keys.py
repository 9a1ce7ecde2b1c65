"""`octavo keys`: makes the keys that scheduler and workers know each other by over TCP."""

import os
import sys
from pathlib import Path

from .curve import new_key_pair


def main(directory: Path) -> int:
    """Make the keys of a scheduler and its workers: for each of them NAME.key and NAME.pub.

    The secret .key goes where the process runs, the .pub where its peer does. Files that are there
    already stay as they are, and nothing is written.

    Parameters
    ----------
    directory:
        Where the files go; made, for its owner only, if it is not there.
    """
    files: dict[Path, bytes] = {}
    for name in ("scheduler", "worker"):
        public, secret = new_key_pair()
        files |= {directory / f"{name}.key": secret, directory / f"{name}.pub": public}
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in files:
            if path.exists():
                print(
                    f"octavo: {path} is there already and is not replaced;"
                    " delete it first, or give another directory.",
                    file=sys.stderr,
                )
                return 1
        for path, key in files.items():
            _write(path, key)
    except OSError as error:
        print(f"octavo: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(*files, sep="\n")
    return 0


def _write(path: Path, key: bytes) -> None:
    """Write a file that only its owner can read, never over another."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key + b"\n")
