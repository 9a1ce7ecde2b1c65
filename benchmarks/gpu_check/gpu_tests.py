"""The tests that need a GPU, or have one where there is one, in a process of their own."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from .child import time_shares
from .report import Row

_ROOT = Path(__file__).parents[2]
# With the weight of each in the time that all have.
FOLDERS = {
    "tests/gpu": 2,
    "tests/kernels/gpu": 4,
    "tests/worker/gpu": 2,
    "tests/benchmarks/gpu": 1,
}
_MOST_TOLD = 20
# They share the GPU's memory.
_MOST_PROCESSES = 8


def gpu_test_rows(limit_s: float, folders: Mapping[str, float] = FOLDERS) -> Iterator[Row]:
    """Yield how many tests of each folder passed, and the names of those that did not.

    A folder that is not done in its share of the time is told, and the next begun.
    """
    there = [folder for folder in folders if (_ROOT / folder).exists()]
    shares = time_shares(limit_s, [folders[folder] for folder in there])
    for folder, share_s in zip(there, shares, strict=True):
        try:
            cases = _run(folder, share_s)
        except (subprocess.TimeoutExpired, RuntimeError) as error:
            yield {"tests": folder, "error": str(error)}
        else:
            yield from _rows(folder, cases)


def _run(folder: str, limit_s: float) -> list[ET.Element]:
    """Return the outcome of each test."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={path}", folder]
        # What takes the time is to compile.
        if find_spec("xdist"):
            command += ["-n", str(min(_MOST_PROCESSES, os.cpu_count() or 1))]
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=limit_s, check=False
        )
        if not path.exists():
            raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-300:]}")
        return list(ET.parse(path).iter("testcase"))


def _rows(folder: str, cases: Sequence[ET.Element]) -> Iterator[Row]:
    failed = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    counts = {"passed": len(cases) - len(failed) - skipped, "skipped": skipped}
    is_right = not failed and counts["passed"] > 0
    yield {"tests": folder, **counts, "failed": len(failed), "is_right": is_right}
    for name in failed[:_MOST_TOLD]:
        yield {"tests": name, "is_right": False}
