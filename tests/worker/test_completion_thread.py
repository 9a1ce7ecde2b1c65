"""octavo.worker.completion_thread: one after another, until one fails."""

import threading
from collections.abc import Callable

import pytest

from octavo.worker.completion_thread import CompletionThread


def fails() -> None:
    raise ValueError("no result")


def no_failure(error: Exception) -> None:
    raise AssertionError(error)


def test_all_that_was_added_is_run_in_order_before_it_closes() -> None:
    done: list[int] = []
    threads: set[threading.Thread] = set()

    def completion(number: int) -> Callable[[], None]:
        def complete() -> None:
            done.append(number)
            threads.add(threading.current_thread())

        return complete

    completions = CompletionThread(no_failure)
    for number in range(100):
        completions.add(completion(number))
    completions.close()
    assert done == list(range(100))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_nothing_is_run_after_a_failure() -> None:
    failures: list[Exception] = []
    done: list[str] = []
    completions = CompletionThread(failures.append)
    completions.add(lambda: done.append("before"))
    completions.add(fails)
    completions.add(lambda: done.append("after"))
    completions.close()
    assert done == ["before"]
    (failure,) = failures
    with pytest.raises(ValueError, match="no result"):
        raise failure


def test_without_work_there_is_no_thread() -> None:
    before = threading.active_count()
    completions = CompletionThread(no_failure)
    assert threading.active_count() == before
    completions.close()
