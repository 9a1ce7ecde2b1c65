"""Plans that no scheduler has made: a step that warms a runner up, or takes as much as any can."""

from octavo.v1.common_pb2 import SamplingParams
from octavo.v1.step_pb2 import AddedRow, BlockTable, GroupBlocks, StepPlan

from .rows import RowLimits

EVERY_KIND_OF_SAMPLING = SamplingParams(
    temperature=1.0, top_k=1, top_p=0.5, min_p=0.5, repetition_penalty=2.0, frequency_penalty=1.0
)


def dummy_plan(limits: RowLimits, num_rows: int, num_tokens: int) -> StepPlan:
    """Return a step of so many new rows, which share the tokens evenly, and sample all.

    They want all that takes memory beside their logits: penalties, and log-probabilities. Their
    blocks are the first `num_dummy_blocks`.
    """
    plan = StepPlan(groups=[GroupBlocks() for _ in limits.num_blocks])
    first_block = 0
    for row in range(num_rows):
        length = num_tokens * (row + 1) // num_rows - num_tokens * row // num_rows
        last_block = first_block - (-length // limits.block_size)
        blocks = range(first_block, last_block)
        tables = [BlockTable(block_ids=blocks) for _ in limits.num_blocks]
        plan.added_rows.append(
            AddedRow(
                row=row,
                token_ids=[0] * length,
                num_prompt_tokens=length,
                block_tables=tables,
                sampling=EVERY_KIND_OF_SAMPLING,
                num_logprobs=1,
            )
        )
        plan.row.append(row)
        plan.num_new_tokens.append(length)
        plan.needs_sample.append(1)
        first_block = last_block
    return plan


def freeing_plan(limits: RowLimits, num_rows: int) -> StepPlan:
    """Return a step that frees the rows of such a plan."""
    groups = [GroupBlocks() for _ in limits.num_blocks]
    return StepPlan(freed_rows=range(num_rows), groups=groups)


def num_dummy_blocks(limits: RowLimits, num_rows: int, num_tokens: int) -> int:
    """Return how many blocks the rows of such a plan take at most."""
    return num_rows + num_tokens // limits.block_size


def largest_step(limits: RowLimits) -> tuple[int, int]:
    """Return rows and tokens of the step that takes most: all tokens, and most rows that sample."""
    num_rows = min(limits.num_rows, limits.max_num_batched_tokens)
    return num_rows, min(limits.max_num_batched_tokens, num_rows * limits.max_model_len)
