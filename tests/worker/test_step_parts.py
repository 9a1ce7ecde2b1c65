"""octavo.worker.step_parts: the parts are the step, and none takes more memory than there is."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.worker.plan_columns import PlanColumns
from octavo.worker.step_parts import halves, run_in_parts, slice_halves, try_twice

counts = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def step(num_new_tokens: list[int], seed: int = 0) -> PlanColumns:
    needs_sample = np.random.default_rng(seed).random(len(num_new_tokens)) < 0.7
    return PlanColumns(
        row=np.arange(len(num_new_tokens))[::-1] + 3,
        num_new_tokens=np.array(num_new_tokens, np.int64),
        needs_sample=needs_sample,
    )


def tokens(columns: PlanColumns) -> list[tuple[int, bool]]:
    """Return the step's tokens in order: the row, and whether it is sampled after this one."""
    return [
        (int(row), bool(sample) and i == count - 1)
        for row, count, sample in zip(
            columns.row, columns.num_new_tokens, columns.needs_sample, strict=True
        )
        for i in range(count)
    ]


class SmallDevice:
    """Computes steps of some tokens at most; notes the parts, and what was given back."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self.num_returns = 0
        self.num_failures = 0

    def run(self, columns: PlanColumns) -> PlanColumns:
        if columns.num_new_tokens.sum() > self._max_tokens:
            self.num_failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return columns

    def return_freed_memory(self) -> None:
        self.num_returns += 1

    def parts(self, columns: PlanColumns) -> list[PlanColumns]:
        return list(run_in_parts(self.run, columns, halves, self.return_freed_memory))


@given(counts.filter(lambda each: sum(each) > 1), st.integers(0, 99))
def test_halves_have_the_tokens_in_order_and_as_many_of_them(each: list[int], seed: int) -> None:
    columns = step(each, seed)
    divided = halves(columns)
    assert divided is not None
    first, second = divided
    assert tokens(first) + tokens(second) == tokens(columns)
    difference = second.num_new_tokens.sum() - first.num_new_tokens.sum()
    assert difference in (0, 1)
    assert columns.num_new_tokens.tolist() == each


@given(counts, st.integers(1, 60), st.integers(0, 99))
def test_parts_are_the_step_whatever_the_memory(
    each: list[int], max_tokens: int, seed: int
) -> None:
    columns, device = step(each, seed), SmallDevice(max_tokens)
    parts = device.parts(columns)
    assert [token for part in parts for token in tokens(part)] == tokens(columns)
    assert device.num_failures == device.num_returns == len(parts) - 1
    assert max(part.num_new_tokens.sum() for part in parts) <= max_tokens


def test_a_step_that_fits_is_left_as_it_is() -> None:
    columns = step([3, 1])
    assert SmallDevice(4).parts(columns) == [columns]


def test_a_token_that_does_not_fit_is_told() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        SmallDevice(0).parts(step([2]))


def test_other_errors_are_not_about_memory() -> None:
    def run(columns: PlanColumns) -> None:
        raise ValueError("an error of ours")

    with pytest.raises(ValueError, match="an error of ours"):
        list(run_in_parts(run, step([2]), halves, lambda: None))


@given(st.integers(0, 20), st.integers(1, 20), st.sets(st.integers(0, 40)))
def test_places_that_find_no_memory_are_given_up_and_no_others(
    start: int, count: int, hopeless: set[int]
) -> None:
    def run(some: slice) -> tuple[list[int], bool]:
        places = list(range(some.start, some.stop))
        if hopeless & set(places):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return places, True

    def give_up(some: slice) -> tuple[list[int], bool]:
        return list(range(some.start, some.stop)), False

    everything = slice(start, start + count)
    parts = list(run_in_parts(run, everything, slice_halves, lambda: None, give_up))
    assert [place for places, _ in parts for place in places] == list(range(start, start + count))
    assert {place for places, done in parts if not done for place in places} == hopeless & set(
        range(start, start + count)
    )


def test_what_has_no_parts_is_tried_twice() -> None:
    attempts = []

    def work() -> int:
        attempts.append(1)
        if len(attempts) < 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 5

    assert try_twice(work, lambda: None) == 5
