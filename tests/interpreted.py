"""Tests whose kernels run in Triton's interpreter, where there is no GPU; in a run of their own.

A folder of them says so in its conftest.py:

    from tests.interpreted import mended_interpreter, pytest_configure, pytest_ignore_collect

The interpreter is chosen for a whole process, before Triton is imported, and then operations on
the CPU go to it as well. So a run that asks for such folders alone has it, `make test` makes that
run, and a run of anything else leaves them out. With a GPU they run like other tests, on it.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = tuple(ROOT / "tests" / name for name in ("benchmarks/gpu", "kernels/gpu", "worker/gpu"))


def pytest_configure(config: pytest.Config) -> None:
    if not torch.cuda.is_available() and asks_for_nothing_else(config):
        os.environ["TRITON_INTERPRET"] = "1"
        # What is meant by it is infinity.
        config.addinivalue_line("filterwarnings", "ignore:overflow encountered in exp")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    can_run = torch.cuda.is_available() or "TRITON_INTERPRET" in os.environ
    # Triton is made for Linux.
    return None if can_run and importlib.util.find_spec("triton") else True


def asks_for_nothing_else(config: pytest.Config) -> bool:
    """Say whether all that the command line names lies in these folders."""
    named = [config.invocation_params.dir / arg.partition("::")[0] for arg in config.args]
    return all(any(path.resolve().is_relative_to(each) for each in FOLDERS) for path in named)


@pytest.fixture(scope="session", autouse=True)
def mended_interpreter() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if "TRITON_INTERPRET" in os.environ:
            # Triton must not be imported before the variable is set.
            from tests.interpreter_repairs import repair

            repair(patch)
        yield
