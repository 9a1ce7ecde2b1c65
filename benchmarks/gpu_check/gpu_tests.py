"""The tests that need a GPU, or have one where there is one, in a process of their own."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from .report import Row

_ROOT = Path(__file__).parents[2]
FOLDERS = ("tests/gpu", "tests/kernels/gpu", "tests/worker/gpu", "tests/benchmarks/gpu")
_MOST_TOLD = 20
# They share the GPU's memory.
_MOST_PROCESSES = 8


def gpu_test_rows(limit_s: float, folders: Sequence[str] = FOLDERS) -> Iterator[Row]:
    """Yield how many tests passed, and the names of those that did not."""
    there = [folder for folder in folders if (_ROOT / folder).exists()]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={path}", *there]
        # What takes the time is to compile.
        if find_spec("xdist"):
            command += ["-n", str(min(_MOST_PROCESSES, os.cpu_count() or 1))]
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, text=True, timeout=limit_s, check=False
        )
        if not path.exists():
            raise RuntimeError(f"pytest ended with {done.returncode}: {done.stdout[-300:]}")
        cases = list(ET.parse(path).iter("testcase"))
    outcomes = {"failure": 0, "error": 0, "skipped": 0}
    failed = []
    for case in cases:
        outcome = next((kind for kind in outcomes if case.find(kind) is not None), None)
        if outcome is not None:
            outcomes[outcome] += 1
        if outcome in ("failure", "error"):
            failed.append(f"{case.get('classname')}.{case.get('name')}")
    passed = len(cases) - sum(outcomes.values())
    yield {"passed": passed, **outcomes, "is_right": not failed and passed > 0}
    for name in failed[:_MOST_TOLD]:
        yield {"failed": name, "is_right": False}
