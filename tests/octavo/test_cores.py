"""octavo.cores: which threads may run on which cores."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from octavo.cores import leave_core, leave_starters_core, take_core

ALLOWED = os.sched_getaffinity(0)

pytestmark = pytest.mark.skipif(len(ALLOWED) < 2, reason="wants two cores")

T = TypeVar("T")


def on_a_thread(run: Callable[[], T]) -> T:
    """Run this on a thread that the calling one starts."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(run).result()


def allowed_after_leaving() -> set[int]:
    leave_starters_core()
    return os.sched_getaffinity(0)


def test_what_a_thread_with_a_core_of_its_own_starts_runs_where_the_others_may() -> None:
    core = min(ALLOWED)

    def allowed() -> tuple[set[int], set[int]]:
        take_core(core)
        return os.sched_getaffinity(0), on_a_thread(allowed_after_leaving)

    assert on_a_thread(allowed) == ({core}, ALLOWED - {core})


def test_what_a_thread_without_one_starts_may_go_anywhere() -> None:
    assert on_a_thread(allowed_after_leaving) == ALLOWED


def test_where_threads_may_not_choose_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: int, cores: set[int]) -> None:
        raise PermissionError(thread, cores)

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    leave_core(min(ALLOWED))
    take_core(min(ALLOWED))
    assert os.sched_getaffinity(0) == ALLOWED
