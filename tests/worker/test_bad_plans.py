"""Every way in which a plan can break the contract, and what the worker says to it."""

from collections.abc import Callable

import pytest

from octavo.v1 import step_pb2
from octavo.worker.rows import BadPlan, Rows
from tests.worker.plans import added, copy, fork, plan, state, two_rows


@pytest.fixture
def rows() -> Rows:
    return two_rows()


def _grow(p: step_pb2.StepPlan, row: int, block_ids: list[int]) -> None:
    p.groups[0].grown_row.append(row)
    p.groups[0].num_new_blocks.append(len(block_ids))
    p.groups[0].block_ids.extend(block_ids)


def _columns_of_unequal_length(p: step_pb2.StepPlan) -> None:
    p.needs_sample.append(1)


def _growth_of_unequal_length(p: step_pb2.StepPlan) -> None:
    p.groups[0].num_new_blocks.append(0)


def _growth_of_a_row_unknown(p: step_pb2.StepPlan) -> None:
    _grow(p, 3, [5])


def _growth_of_a_row_out_of_range(p: step_pb2.StepPlan) -> None:
    _grow(p, 4, [5])


def _growth_of_a_row_twice(p: step_pb2.StepPlan) -> None:
    _grow(p, 0, [5])
    _grow(p, 0, [6])


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
    _grow(p, 0, [2])


def _grown_block_for_two_rows(p: step_pb2.StepPlan) -> None:
    _grow(p, 0, [5])
    _grow(p, 1, [5])


def _grown_past_the_table(p: step_pb2.StepPlan) -> None:
    _grow(p, 0, [3, 4, 5, 6, 7])


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


def _copy_of_a_row_unknown(p: step_pb2.StepPlan) -> None:
    copy(p, 3, 0, 5)


def _copy_of_a_block_not_its_own(p: step_pb2.StepPlan) -> None:
    copy(p, 0, 2, 5)


def _copy_onto_a_held_block(p: step_pb2.StepPlan) -> None:
    copy(p, 0, 1, 2)


def _copies_in_a_chain(p: step_pb2.StepPlan) -> None:
    copy(p, 0, 1, 5)
    copy(p, 1, 2, 1)


def _copies_of_unequal_length(p: step_pb2.StepPlan) -> None:
    copy(p, 0, 1, 5)
    p.groups[0].copy_target.append(6)


def _fork_of_a_row_not_sampled(p: step_pb2.StepPlan) -> None:
    p.needs_sample[1] = 0
    fork(p, 1, 2, 1)


def _fork_onto_a_row_in_use(p: step_pb2.StepPlan) -> None:
    fork(p, 1, 0, 1)


def _forked_twice(p: step_pb2.StepPlan) -> None:
    fork(p, 1, 2, 1)
    fork(p, 1, 2, 1)


def _fork_that_shares_another_number(p: step_pb2.StepPlan) -> None:
    fork(p, 1, 2, 2)


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
    _growth_of_unequal_length: "num_new_blocks has 1 entries, grown_row has 0",
    _growth_of_a_row_unknown: "grown_row names row 3, which is not in use",
    _growth_of_a_row_out_of_range: "grown_row names row 4, which is not in use",
    _growth_of_a_row_twice: "a row is twice in grown_row",
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
