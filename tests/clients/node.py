"""Node clients: a script of this folder that prints what it saw as JSON."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

needs_node = pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js")


def run_node(script: str, *arguments: str) -> dict[str, Any]:
    """Return what the script printed."""
    command = ["node", str(Path(__file__).with_name(script)), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    seen: dict[str, Any] = json.loads(ended.stdout)
    return seen
