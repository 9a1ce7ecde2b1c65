"""Rows: a right plan changes exactly what it says, a wrong one is refused and changes nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.v1 import step_pb2
from octavo.worker.block_tables import TRAP
from octavo.worker.rows import BadPlan, Rows
from tests.worker.plans import LIMITS, added, plan


def run(rows: Rows, step_plan: step_pb2.StepPlan, token_id: int = 9) -> None:
    """Do what a runner does, sampling the same token everywhere."""
    columns = rows.apply(step_plan)
    rows.advance(columns)
    rows.fork(step_plan)
    sampled = columns.row[columns.needs_sample].tolist()
    for row in sampled + [forked.row for forked in step_plan.forked_rows]:
        rows.append_token(row, token_id)


def state(rows: Rows) -> list[bytes]:
    """Everything that a plan can change."""
    arrays: list[NDArray[Any]] = [
        *(rows.token_ids, rows.num_tokens, rows.num_computed_tokens, rows.seed),
        *(rows.temperature, rows.top_p, rows.top_k, rows.is_used),
    ]
    for group in rows._groups:
        arrays += [group.table, group.num_blocks, group.references, group.is_sealed]
    return [array.tobytes() for array in arrays]


@pytest.fixture
def rows() -> Rows:
    """Row 0: six tokens in blocks 0 (sealed) and 1; row 1: three tokens in block 2."""
    rows = Rows(LIMITS, poison=True)
    first = plan(1, [(0, 5, 1), (1, 2, 1)])
    first.added_rows.extend([added(0, [1, 2, 3, 4, 5], [0, 1]), added(1, [6, 7], [2])])
    run(rows, first)
    second = plan(2)
    second.groups[0].sealed_block_ids.append(0)
    second.groups[0].sealed_block_hashes = bytes(16)
    rows.apply(second)
    return rows


def test_an_added_row_holds_its_tokens_blocks_and_sampling(rows: Rows) -> None:
    assert rows.token_ids[0, : rows.num_tokens[0]].tolist() == [1, 2, 3, 4, 5, 9]
    assert rows.num_computed_tokens[0] == 5
    assert rows.block_tables[0][0, : rows.num_blocks[0][0]].tolist() == [0, 1]
    assert (rows.temperature[0], rows.top_p[0], rows.top_k[0], rows.seed[0]) == (0, 1, 0, 7)


def test_a_plan_that_goes_on_says_only_what_is_new(rows: Rows) -> None:
    run(rows, plan(3, [(0, 1, 1), (1, 1, 1)]), token_id=8)
    assert rows.token_ids[1, : rows.num_tokens[1]].tolist() == [6, 7, 9, 8]
    run(rows, plan(4, [(1, 1, 1)]))
    run(rows, plan(5, [(1, 1, 1)], new_blocks=[[5]]))
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
    assert np.isnan(rows.temperature[0])
    assert np.isnan(rows.top_p[0])
    assert rows.num_tokens[0] == rows.num_computed_tokens[0] == rows.top_k[0] == TRAP


def _columns_of_unequal_length(p: step_pb2.StepPlan) -> None:
    p.needs_sample.append(1)


def _growth_of_unequal_length(p: step_pb2.StepPlan) -> None:
    p.groups[0].num_new_blocks.append(0)


def _growth_and_blocks_differ(p: step_pb2.StepPlan) -> None:
    p.groups[0].block_ids.append(5)


def _unknown_row(p: step_pb2.StepPlan) -> None:
    p.row[0] = 3


def _row_out_of_range(p: step_pb2.StepPlan) -> None:
    p.row[0] = 2**32 - 1


def _row_twice(p: step_pb2.StepPlan) -> None:
    p.row[1] = 0


def _no_tokens(p: step_pb2.StepPlan) -> None:
    p.num_new_tokens[0] = 0


def _more_tokens_than_known(p: step_pb2.StepPlan) -> None:
    p.num_new_tokens[0] = 2


def _sampled_before_the_end(p: step_pb2.StepPlan) -> None:
    p.freed_rows.append(0)
    p.added_rows.append(added(0, [1, 2, 3], [5]))


def _over_the_budget(p: step_pb2.StepPlan) -> None:
    p.freed_rows.append(0)
    p.added_rows.append(added(0, list(range(1, 14)), [0, 4, 5, 6]))
    p.num_new_tokens[0] = 13


def _freed_row_unknown(p: step_pb2.StepPlan) -> None:
    p.freed_rows.append(2)


def _freed_twice(p: step_pb2.StepPlan) -> None:
    p.freed_rows.extend([0, 0])


def _added_row_in_use(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(1, [1], [5]))


def _added_row_out_of_range(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(4, [1], [5]))


def _added_without_tokens(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [], [5]))


def _added_past_the_context(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1] * 17, [4, 5, 6, 7]))


def _added_token_past_the_vocabulary(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [50], [5]))


def _added_wholly_computed(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1, 2], [5], num_computed_tokens=2))


def _computed_tokens_without_a_block(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1, 2, 3, 4, 5, 6], [0], num_computed_tokens=5))


def _added_block_held_by_another(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1, 2], [1]))


def _added_block_twice(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1, 2], [5, 5]))


def _added_block_out_of_range(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1, 2], [8]))


def _grown_block_held_by_another(p: step_pb2.StepPlan) -> None:
    p.groups[0].num_new_blocks[0] = 1
    p.groups[0].block_ids.append(2)


def _grown_block_for_two_rows(p: step_pb2.StepPlan) -> None:
    p.groups[0].num_new_blocks[:] = [1, 1]
    p.groups[0].block_ids.extend([5, 5])


def _grown_past_the_table(p: step_pb2.StepPlan) -> None:
    p.groups[0].num_new_blocks[0] = 5
    p.groups[0].block_ids.extend([3, 4, 5, 6, 7])


def _table_too_short(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1, 2, 3, 4, 5], [5]))
    p.row[0], p.num_new_tokens[0] = 2, 5


def _write_into_a_sealed_block(p: step_pb2.StepPlan) -> None:
    p.groups[0].sealed_block_ids.append(1)
    p.groups[0].sealed_block_hashes = bytes(16)


def _sealed_block_out_of_range(p: step_pb2.StepPlan) -> None:
    p.groups[0].sealed_block_ids.append(8)
    p.groups[0].sealed_block_hashes = bytes(16)


def _sealed_without_a_hash(p: step_pb2.StepPlan) -> None:
    p.groups[0].sealed_block_ids.append(3)


def _copy(p: step_pb2.StepPlan, row: int, source: int, target: int) -> None:
    p.groups[0].copy_row.append(row)
    p.groups[0].copy_source.append(source)
    p.groups[0].copy_target.append(target)


def _copy_of_a_row_unknown(p: step_pb2.StepPlan) -> None:
    _copy(p, 3, 0, 5)


def _copy_of_a_block_not_its_own(p: step_pb2.StepPlan) -> None:
    _copy(p, 0, 2, 5)


def _copy_onto_a_held_block(p: step_pb2.StepPlan) -> None:
    _copy(p, 0, 1, 2)


def _copies_in_a_chain(p: step_pb2.StepPlan) -> None:
    _copy(p, 0, 1, 5)
    _copy(p, 1, 2, 1)


def _copies_of_unequal_length(p: step_pb2.StepPlan) -> None:
    _copy(p, 0, 1, 5)
    p.groups[0].copy_target.append(6)


def _fork(p: step_pb2.StepPlan, source_row: int, row: int, num_shared_blocks: int) -> None:
    p.forked_rows.add(source_row=source_row, row=row, num_shared_blocks=[num_shared_blocks])


def _fork_of_a_row_not_sampled(p: step_pb2.StepPlan) -> None:
    p.needs_sample[1] = 0
    _fork(p, 1, 2, 1)


def _fork_onto_a_row_in_use(p: step_pb2.StepPlan) -> None:
    _fork(p, 1, 0, 1)


def _forked_twice(p: step_pb2.StepPlan) -> None:
    _fork(p, 1, 2, 1)
    _fork(p, 1, 2, 1)


def _fork_that_shares_another_number(p: step_pb2.StepPlan) -> None:
    _fork(p, 1, 2, 2)


def _another_number_of_groups(p: step_pb2.StepPlan) -> None:
    p.groups.add()


def _drafts(p: step_pb2.StepPlan) -> None:
    p.max_draft_tokens.extend([0, 1])


def _temperature_that_is_no_number(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1], [5]))
    p.added_rows[0].sampling.temperature = float("nan")


def _grammar(p: step_pb2.StepPlan) -> None:
    p.added_rows.append(added(2, [1], [5]))
    p.added_rows[0].grammar.source = "[0-9]"


BAD_PLANS: dict[Callable[[step_pb2.StepPlan], None], str] = {
    _columns_of_unequal_length: "have 2, 2 and 3 entries",
    _growth_of_unequal_length: "num_new_blocks has 3 entries, row has 2",
    _growth_and_blocks_differ: "num_new_blocks sum to 0, block_ids has 1",
    _unknown_row: "row 3 has work, but is not in use",
    _row_out_of_range: "row 4294967295 has work",
    _row_twice: "twice",
    _no_tokens: "row 0 has work of no tokens",
    _more_tokens_than_known: "row 0 has 6 tokens; the plan computes 5 to 7",
    _sampled_before_the_end: "row 0 has 3 tokens; the plan computes 0 to 1 and samples the next",
    _over_the_budget: "14 tokens; this worker has memory for 12",
    _freed_row_unknown: "freed_rows names row 2, which is not in use",
    _freed_twice: "freed_rows names row 0, which is not in use",
    _added_row_in_use: "added_rows names row 1, which is in use",
    _added_row_out_of_range: "added_rows names row 4; there are 4 rows",
    _added_without_tokens: "added with 0 tokens",
    _added_past_the_context: "17 tokens, 17 of them prompt; the context holds 16",
    _added_token_past_the_vocabulary: "token 50; there are 50",
    _added_wholly_computed: "2 of 2 tokens computed",
    _computed_tokens_without_a_block: "1 blocks; its computed tokens lie in 2",
    _added_block_held_by_another: "block 1 is handed out, but is still held",
    _added_block_twice: "the same block twice",
    _added_block_out_of_range: "names block 8; there are 8 blocks",
    _grown_block_held_by_another: "block 2 is handed out, but is still held",
    _grown_block_for_two_rows: "block 5 is handed out, but is still held",
    _grown_past_the_table: "row 0 grows past 5 blocks",
    _table_too_short: "row 2 computes into its block number 1, its table has 1 blocks",
    _write_into_a_sealed_block: "row 0 would write into block 1, which is sealed",
    _sealed_block_out_of_range: "sealed_block_ids names block 8",
    _sealed_without_a_hash: "0 bytes of sealed_block_hashes for 1 sealed blocks",
    _copy_of_a_row_unknown: "copy_row names row 3, which is not in use",
    _copy_of_a_block_not_its_own: "copy_source names block 2, which row 0 does not hold",
    _copy_onto_a_held_block: "block 2 is handed out, but is still held",
    _copies_in_a_chain: "both source and target",
    _copies_of_unequal_length: "have 1, 1 and 2 entries",
    _fork_of_a_row_not_sampled: "row 1 is forked, but not sampled",
    _fork_onto_a_row_in_use: "forked_rows names row 0, which is in use",
    _forked_twice: "row 2 is forked twice",
    _fork_that_shares_another_number: "row 1 holds \\[1\\]",
    _another_number_of_groups: "the plan has 2 KV groups, not 1",
    _drafts: "makes no drafts",
    _temperature_that_is_no_number: "temperature nan",
    _grammar: "not offered",
}


@pytest.mark.parametrize("spoil", BAD_PLANS, ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_plan_that_breaks_the_contract_is_refused_and_changes_nothing(
    rows: Rows, spoil: Callable[[step_pb2.StepPlan], None]
) -> None:
    step_plan = plan(3, [(0, 1, 1), (1, 1, 1)])
    spoil(step_plan)
    before = state(rows)
    with pytest.raises(BadPlan, match=BAD_PLANS[spoil]):
        rows.apply(step_plan)
    assert state(rows) == before
    rows.apply(plan(3, [(0, 1, 1), (1, 1, 1)]))


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
    growth=st.lists(st.lists(small, max_size=2), max_size=3),
    copies=st.lists(st.tuples(small, small, small), max_size=2),
    forks=st.lists(st.tuples(small, small, small), max_size=1),
    sealed=st.lists(small, max_size=2),
)
def test_any_plan_is_either_applied_or_refused_without_a_trace(
    freed: list[int],
    added_rows: list[step_pb2.AddedRow],
    work: list[tuple[int, int, int]],
    growth: list[list[int]],
    copies: list[tuple[int, int, int]],
    forks: list[tuple[int, int, int]],
    sealed: list[int],
) -> None:
    rows = Rows(LIMITS)
    first = plan(1, [(0, 5, 1), (1, 2, 1)])
    first.added_rows.extend([added(0, [1, 2, 3, 4, 5], [0, 1]), added(1, [6, 7], [2])])
    run(rows, first)
    step_plan = plan(2, work, new_blocks=growth)
    step_plan.freed_rows.extend(freed)
    step_plan.added_rows.extend(added_rows)
    for copy in copies:
        _copy(step_plan, *copy)
    for fork in forks:
        _fork(step_plan, *fork)
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
