"""octavo.worker.dummy_plans: plans that real rows take, of the sizes that were asked for."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from octavo.worker.dummy_plans import dummy_plan, freeing_plan, largest_step, num_dummy_blocks
from octavo.worker.rows import RowLimits, Rows

BLOCK_SIZE = 4


@st.composite
def limits_with_blocks(draw: st.DrawFn) -> RowLimits:
    limits = RowLimits(
        num_rows=draw(st.integers(1, 9)),
        max_model_len=draw(st.integers(1, 50)),
        block_size=BLOCK_SIZE,
        num_blocks=(0,),
        vocab_size=10,
        max_num_batched_tokens=draw(st.integers(1, 200)),
    )
    num_blocks = num_dummy_blocks(limits, *largest_step(limits))
    return replace(limits, num_blocks=(num_blocks,))


@given(limits_with_blocks())
def test_the_largest_step_fills_all_rows_and_the_budget(limits: RowLimits) -> None:
    num_rows, num_tokens = largest_step(limits)
    rows = Rows(limits, poison=True)
    columns = rows.apply(dummy_plan(limits, num_rows, num_tokens))
    assert num_rows == min(limits.num_rows, limits.max_num_batched_tokens)
    assert columns.num_new_tokens.sum() == min(
        limits.max_num_batched_tokens, num_rows * limits.max_model_len
    )
    assert columns.num_new_tokens.max() - columns.num_new_tokens.min() <= 1
    assert columns.needs_sample.all() and len(columns.row) == num_rows
    assert rows.sampling.has_rules[columns.row].all()
    assert (rows.sampling.num_logprobs[columns.row] == 1).all()
    rows.advance(columns)
    rows.apply(freeing_plan(limits, num_rows))
    assert not rows.is_used.any()
