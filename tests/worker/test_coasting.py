"""Plans that say nothing new: known as such, and no other is taken for one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.worker.coasting import Coasting
from octavo.worker.rows import BadPlan, Rows
from tests.worker.plans import LIMITS, added, fork, plan, run, state


def rows_of_two(length: int = 5) -> Rows:
    """Two rows of so many tokens, and one sampled, with blocks for eight more."""
    rows = Rows(LIMITS, poison=True)
    first = plan(1, [(0, length, 1), (1, length, 1)])
    tokens = list(range(1, length + 1))
    first.added_rows.extend([added(0, tokens, [0, 1, 2]), added(1, tokens, [3, 4, 5])])
    run(rows, first)
    return rows


def test_the_columns_are_the_same_object_until_a_row_reaches_its_blocks_end() -> None:
    rows = rows_of_two()
    both = [(0, 1, 1), (1, 1, 1)]
    columns = []
    for step_id in range(2, 8):
        columns.append(rows.apply(plan(step_id, both)))
        rows.advance(columns[-1])
        rows.append_tokens(np.array([0, 1]), np.array([8, 9]))
    # Positions 5 to 7 are of the second block, 8 to 10 of the third.
    assert [one is other for one, other in zip(columns, columns[1:], strict=False)] == [
        *(True, True, False),
        *(True, True),
    ]
    assert rows.num_computed_tokens[:2].tolist() == [11, 11]


@pytest.mark.parametrize("work", [[(0, 1, 1)], [(1, 1, 1), (0, 1, 1)], [(0, 1, 0), (1, 1, 1)]])
def test_other_columns_are_something_new(work: list[tuple[int, int, int]]) -> None:
    rows = rows_of_two()
    run(rows, plan(2, [(0, 1, 1), (1, 1, 1)]))
    columns = rows.apply(plan(3, work))
    assert columns.row.tolist() == [row for row, _, _ in work]
    assert columns.needs_sample.tolist() == [bool(sample) for _, _, sample in work]


def test_a_row_that_was_forked_shares_the_block_it_would_go_on_in() -> None:
    rows = rows_of_two()
    forking = plan(2, [(0, 1, 1)])
    fork(forking, 0, 2, 3)
    run(rows, forking)
    with pytest.raises(BadPlan, match="other rows share"):
        rows.apply(plan(3, [(0, 1, 1)]))


def test_the_context_ends_it() -> None:
    length = LIMITS.max_model_len - 2
    rows = Rows(replace(LIMITS, max_model_len=length, max_num_batched_tokens=length))
    first = plan(1, [(0, length - 1, 1)])
    first.added_rows.append(added(0, list(range(1, length)), [0, 1, 2, 3]))
    run(rows, first)
    run(rows, plan(2, [(0, 1, 1)]))
    with pytest.raises(BadPlan, match="past the context"):
        rows.apply(plan(3, [(0, 1, 1)]))


_work = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 1)), min_size=1, max_size=2
)
_same = st.just([(0, 1, 1), (1, 1, 1)])


@given(st.lists(_same | _same | _work, max_size=9), st.integers(4, 6), st.sampled_from([0, 0, 7]))
def test_rows_that_never_coast_take_and_refuse_the_same(
    steps: list[list[tuple[int, int, int]]], length: int, sealed: int
) -> None:
    """Whatever follows whatever: the arrays are the same to the byte, and so is each refusal."""
    coasting, plain = rows_of_two(length), rows_of_two(length)
    for step_id, work in enumerate(steps, 2):
        step_plan = plan(step_id, work)
        if step_id == sealed:
            step_plan.groups[0].sealed_block_ids.append(1)
            step_plan.groups[0].sealed_block_hashes = bytes(16)
        plain._coasting = Coasting(LIMITS.block_size, LIMITS.max_model_len)
        refusals = []
        for rows in (coasting, plain):
            try:
                run(rows, step_plan)
                refusals.append("")
            except BadPlan as error:
                refusals.append(str(error))
        assert refusals[0] == refusals[1]
        assert state(coasting) == state(plain)
