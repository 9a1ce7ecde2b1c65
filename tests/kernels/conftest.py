"""What the kernel tests share: the C++ library or its absence, poisoned memory, fixed seeds."""

import ctypes
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from octavo.kernels import threads
from octavo.kernels.cpu import library
from octavo.kernels.workspace import Workspace


@pytest.fixture
def cpu() -> ctypes.CDLL:
    """The C++ kernels; a machine without a compiler has nothing to test here."""
    loaded = library.load()
    if loaded is None:
        pytest.skip("no C++ compiler")
    return loaded


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels as they are on a machine without a compiler."""
    monkeypatch.setattr(library, "load", lambda: None)


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """New tensors, and old memory used again, hold NaN, or -7, until somebody writes them."""
    empty, empty_like, take = torch.empty, torch.empty_like, Workspace.take

    def poisoned(tensor: Tensor) -> Tensor:
        return tensor.fill_(math.nan if tensor.is_floating_point() else -7)

    def poisoned_empty(*args: Any, **options: Any) -> Tensor:
        return poisoned(empty(*args, **options))

    def poisoned_empty_like(*args: Any, **options: Any) -> Tensor:
        return poisoned(empty_like(*args, **options))

    def poisoned_take(*args: Any) -> Tensor:
        return poisoned(take(*args))

    monkeypatch.setattr(torch, "empty", poisoned_empty)
    monkeypatch.setattr(torch, "empty_like", poisoned_empty_like)
    monkeypatch.setattr(Workspace, "take", poisoned_take)


@pytest.fixture(autouse=True)
def same_numbers_and_one_thread() -> Iterator[None]:
    """Each test starts with the same random numbers, and on one thread unless it asks for more."""
    before = torch.get_num_threads(), threads.num_threads()
    torch.set_num_threads(1)
    threads.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before[0])
    threads.set_num_threads(before[1])
