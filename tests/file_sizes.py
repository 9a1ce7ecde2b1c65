"""Prints the largest files and those over 300 lines; fails if one has more than 400.

Run by `make check`. Generated code does not count.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_LISTED_LINES = 300
_MOST_LINES = 400
_NUM_LARGEST = 10
_SUFFIXES = {".py", ".cpp", ".h", ".proto", ".js", ".sh"}
_GENERATED = ROOT / "octavo" / "v1"


def main() -> int:
    sizes = sorted(((num_lines(path), path) for path in source_files()), reverse=True)
    for position, (lines, path) in enumerate(sizes):
        if lines > _LISTED_LINES or position < _NUM_LARGEST:
            mark = "  too long" if lines > _MOST_LINES else ""
            print(f"{lines:>5}  {path.relative_to(ROOT)}{mark}")
    total = sum(lines for lines, _ in sizes)
    median = sizes[len(sizes) // 2][0]
    print(f"{len(sizes)} files, {total} lines, median {median}; at most {_MOST_LINES} in one")
    return int(sizes[0][0] > _MOST_LINES)


def source_files() -> list[Path]:
    """Return what git knows or would add, links left out: they show the same files again."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [
        path
        for path in paths
        if path.suffix in _SUFFIXES and path.is_file() and path.parent != _GENERATED
    ]


def num_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


if __name__ == "__main__":
    sys.exit(main())
