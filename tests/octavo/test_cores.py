"""octavo.cores: which threads may run on which cores."""

import os

import pytest

from octavo.cores import leave_core, take_core

ALLOWED = os.sched_getaffinity(0)

pytestmark = pytest.mark.skipif(len(ALLOWED) < 2, reason="wants two cores")


def test_where_threads_may_not_choose_they_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: int, cores: set[int]) -> None:
        raise PermissionError(thread, cores)

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    leave_core(min(ALLOWED))
    take_core(min(ALLOWED))
    assert os.sched_getaffinity(0) == ALLOWED
