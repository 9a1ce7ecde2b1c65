"""Step plans written down in a line each, and rows small enough to look at."""

from collections.abc import Sequence

from octavo.v1 import common_pb2, step_pb2
from octavo.worker.rows import RowLimits

BLOCK_SIZE = 4
LIMITS = RowLimits(
    num_rows=4,
    max_model_len=16,
    block_size=BLOCK_SIZE,
    num_blocks=(8,),
    vocab_size=50,
    max_num_batched_tokens=12,
)


def added(
    row: int,
    token_ids: Sequence[int],
    block_ids: Sequence[int],
    *,
    num_computed_tokens: int = 0,
    seed: int = 7,
) -> step_pb2.AddedRow:
    return step_pb2.AddedRow(
        row=row,
        token_ids=token_ids,
        num_prompt_tokens=len(token_ids),
        num_computed_tokens=num_computed_tokens,
        block_tables=[step_pb2.BlockTable(block_ids=block_ids)],
        sampling=common_pb2.SamplingParams(temperature=0.0),
        seed=seed,
    )


def plan(
    step_id: int,
    work: Sequence[tuple[int, int, int]] = (),
    *,
    epoch: int = 1,
    new_blocks: Sequence[Sequence[int]] | None = None,
) -> step_pb2.StepPlan:
    """Return a plan with (row, num_new_tokens, needs_sample) columns.

    `new_blocks` lists, for each entry of `work`, the blocks appended to the row's table.
    """
    growth = new_blocks if new_blocks is not None else [()] * len(work)
    return step_pb2.StepPlan(
        epoch=epoch,
        step_id=step_id,
        row=[row for row, _, _ in work],
        num_new_tokens=[num_new for _, num_new, _ in work],
        needs_sample=[sample for _, _, sample in work],
        groups=[
            step_pb2.GroupBlocks(
                num_new_blocks=[len(blocks) for blocks in growth],
                block_ids=[block for blocks in growth for block in blocks],
            )
        ],
    )
