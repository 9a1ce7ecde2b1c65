"""Rows: a right plan changes exactly what it says, and any other nothing at all."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.startup import StartupError
from octavo.v1 import step_pb2
from octavo.worker.block_tables import TRAP
from octavo.worker.rows import BadPlan, Rows
from tests.worker.plans import LIMITS, added, copy, fork, plan, run, state, two_rows


@pytest.fixture
def rows() -> Rows:
    return two_rows()


def test_an_added_row_holds_its_tokens_blocks_and_sampling(rows: Rows) -> None:
    assert rows.token_ids[0, : rows.num_tokens[0]].tolist() == [1, 2, 3, 4, 5, 9]
    assert rows.num_computed_tokens[0] == 5
    assert rows.block_tables[0][0, : rows.num_blocks[0][0]].tolist() == [0, 1]
    assert (
        rows.sampling.temperature[0],
        rows.sampling.top_p[0],
        rows.sampling.top_k[0],
        rows.seed[0],
    ) == (0, 1, 0, 7)


def test_a_row_that_keeps_more_tokens_than_there_are_keeps_all() -> None:
    rows = Rows(LIMITS)
    first = plan(1, [(0, 1, 1)])
    first.added_rows.append(added(0, [1], [0]))
    first.added_rows[0].sampling.top_k = 2**32 - 1
    run(rows, first)
    assert rows.sampling.top_k[0] == LIMITS.vocab_size


@pytest.mark.parametrize("max_model_len", [8192, 2**31 - 1])
def test_more_rows_than_memory_holds_are_an_error_of_the_operator(max_model_len: int) -> None:
    limits = replace(LIMITS, num_rows=2_000_000_000, max_model_len=max_model_len)
    with pytest.raises(StartupError, match="no memory for 2,000,000,000 rows of .*--max-num-seqs"):
        Rows(limits)


def test_a_plan_that_goes_on_says_only_what_is_new(rows: Rows) -> None:
    run(rows, plan(3, [(0, 1, 1), (1, 1, 1)]), token_id=8)
    assert rows.token_ids[1, : rows.num_tokens[1]].tolist() == [6, 7, 9, 8]
    run(rows, plan(4, [(1, 1, 1)]))
    run(rows, plan(5, [(1, 1, 1)], growth=[(1, [5])]))
    assert rows.block_tables[0][1, : rows.num_blocks[0][1]].tolist() == [2, 5]


def test_a_chunk_that_is_not_the_last_samples_nothing() -> None:
    rows = Rows(LIMITS)
    first = plan(1, [(0, 3, 0)])
    first.added_rows.append(added(0, [1, 2, 3, 4, 5], [0, 1]))
    columns = rows.apply(first)
    assert not columns.needs_sample.any()
    rows.advance(columns)
    assert rows.num_computed_tokens[0] == 3
    assert rows.num_tokens[0] == 5


def test_siblings_share_blocks_and_whoever_writes_first_writes_a_copy(rows: Rows) -> None:
    fork = plan(3, [(1, 1, 1)])
    fork.forked_rows.add(source_row=1, row=2, seed=8, num_shared_blocks=[1])
    run(rows, fork)
    assert rows.token_ids[2, :4].tolist() == [6, 7, 9, 9]
    assert (rows.seed[1], rows.seed[2]) == (7, 8)

    with pytest.raises(BadPlan, match="row 1 would write into block 2, which other rows share"):
        rows.apply(plan(4, [(1, 1, 1), (2, 1, 1)]))

    copying = plan(4, [(1, 1, 1), (2, 1, 1)])
    copying.groups[0].copy_row.append(1)
    copying.groups[0].copy_source.append(2)
    copying.groups[0].copy_target.append(6)
    run(rows, copying)
    assert rows.block_tables[0][1, 0] == 6
    assert rows.block_tables[0][2, 0] == 2


def test_freed_blocks_and_rows_can_be_planned_again_in_the_same_plan(rows: Rows) -> None:
    again = plan(3, [(0, 2, 1)])
    again.freed_rows.append(0)
    again.added_rows.append(added(0, [11, 12], [1], seed=3))
    run(rows, again)
    assert rows.token_ids[0, :3].tolist() == [11, 12, 9]
    assert rows.num_blocks[0][0] == 1
    assert rows.seed[0] == 3


def test_a_sealed_block_may_be_found_again_and_is_unsealed_when_handed_out_anew(rows: Rows) -> None:
    hit = plan(3, [(2, 1, 1)])
    hit.freed_rows.append(0)
    hit.added_rows.append(added(2, [1, 2, 3, 4, 5], [0, 7], num_computed_tokens=4))
    run(rows, hit)
    again = plan(4, [(3, 2, 1)])
    again.freed_rows.append(2)
    again.added_rows.append(added(3, [1, 2], [0]))
    run(rows, again)
    assert rows.num_computed_tokens[3] == 2


def test_a_block_can_be_sealed_and_handed_out_in_one_plan(rows: Rows) -> None:
    both = plan(3, [(2, 2, 1)])
    both.freed_rows.append(1)
    both.added_rows.append(added(2, [1, 2], [2]))
    both.groups[0].sealed_block_ids.append(2)
    both.groups[0].sealed_block_hashes = bytes(16)
    run(rows, both)


def test_a_new_scheduler_finds_the_rows_empty(rows: Rows) -> None:
    first = plan(1, [(0, 2, 1)], epoch=2)
    first.added_rows.append(added(0, [1, 2], [0]))
    run(rows, first)
    assert rows.is_used.tolist() == [True, False, False, False]


def test_freed_rows_are_filled_with_trap_values_where_tests_ask_for_it(rows: Rows) -> None:
    freeing = plan(3)
    freeing.freed_rows.append(0)
    rows.apply(freeing)
    assert (rows.token_ids[0] == TRAP).all()
    assert (rows.block_tables[0][0] == TRAP).all()
    assert np.isnan(rows.sampling.temperature[0])
    assert np.isnan(rows.sampling.top_p[0])
    assert rows.num_tokens[0] == rows.num_computed_tokens[0] == rows.sampling.top_k[0] == TRAP


small = st.integers(0, 9)


@given(
    freed=st.lists(small, max_size=2),
    added_rows=st.lists(
        st.builds(
            lambda row, tokens, blocks, computed: added(
                row, tokens, blocks, num_computed_tokens=computed
            ),
            small,
            st.lists(st.integers(0, 60), max_size=8),
            st.lists(small, max_size=3),
            st.integers(0, 8),
        ),
        max_size=2,
    ),
    work=st.lists(st.tuples(small, st.integers(0, 6), st.integers(0, 1)), max_size=3),
    growth=st.lists(st.tuples(small, st.lists(small, max_size=2)), max_size=3),
    copies=st.lists(st.tuples(small, small, small), max_size=2),
    forks=st.lists(st.tuples(small, small, small), max_size=1),
    sealed=st.lists(small, max_size=2),
)
def test_any_plan_is_either_applied_or_refused_without_a_trace(
    freed: list[int],
    added_rows: list[step_pb2.AddedRow],
    work: list[tuple[int, int, int]],
    growth: list[tuple[int, list[int]]],
    copies: list[tuple[int, int, int]],
    forks: list[tuple[int, int, int]],
    sealed: list[int],
) -> None:
    rows = Rows(LIMITS)
    first = plan(1, [(0, 5, 1), (1, 2, 1)])
    first.added_rows.extend([added(0, [1, 2, 3, 4, 5], [0, 1]), added(1, [6, 7], [2])])
    run(rows, first)
    step_plan = plan(2, work, growth=growth)
    step_plan.freed_rows.extend(freed)
    step_plan.added_rows.extend(added_rows)
    for each in copies:
        copy(step_plan, *each)
    for each in forks:
        fork(step_plan, *each)
    step_plan.groups[0].sealed_block_ids.extend(sealed)
    step_plan.groups[0].sealed_block_hashes = bytes(16 * len(sealed))
    before = state(rows)
    try:
        run(rows, step_plan)
    except BadPlan:
        assert state(rows) == before
        return
    held = [
        rows.block_tables[0][row, : rows.num_blocks[0][row]].tolist()
        for row in np.flatnonzero(rows.is_used)
    ]
    references = np.bincount([block for table in held for block in table], minlength=8)
    assert references.tolist() == rows._groups[0].references.tolist()
    for row in np.flatnonzero(rows.is_used):
        assert rows.num_computed_tokens[row] <= rows.num_tokens[row] <= LIMITS.max_model_len + 1
