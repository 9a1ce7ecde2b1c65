"""Tests whose kernels run in Triton's interpreter, where there is no GPU; in a run of their own.

A folder of them says so in its conftest.py:

    from tests.interpreted import pytest_configure, pytest_ignore_collect

The interpreter is chosen for a whole process, before Triton is imported, and then operations on
the CPU go to it as well. So a run that asks for such folders alone has it, `make test` makes that
run, and a run of anything else leaves them out. With a GPU they run like other tests, on it.
"""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = tuple(ROOT / "tests" / name for name in ("kernels/gpu", "worker/gpu"))


def pytest_configure(config: pytest.Config) -> None:
    if not torch.cuda.is_available() and asks_for_nothing_else(config):
        os.environ["TRITON_INTERPRET"] = "1"


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    can_run = torch.cuda.is_available() or "TRITON_INTERPRET" in os.environ
    return None if can_run else True


def asks_for_nothing_else(config: pytest.Config) -> bool:
    """Say whether all that the command line names lies in these folders."""
    named = [config.invocation_params.dir / arg.partition("::")[0] for arg in config.args]
    return all(any(path.resolve().is_relative_to(each) for each in FOLDERS) for path in named)
