"""Step plans written down in a line each, and rows small enough to look at."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.v1 import common_pb2, step_pb2
from octavo.worker.rows import RowLimits, Rows

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
    growth: Sequence[tuple[int, Sequence[int]]] = (),
) -> step_pb2.StepPlan:
    """Return a plan with (row, num_new_tokens, needs_sample) columns.

    `growth` lists rows and the blocks appended to their tables.
    """
    return step_pb2.StepPlan(
        epoch=epoch,
        step_id=step_id,
        row=[row for row, _, _ in work],
        num_new_tokens=[num_new for _, num_new, _ in work],
        needs_sample=[sample for _, _, sample in work],
        groups=[
            step_pb2.GroupBlocks(
                grown_row=[row for row, _ in growth],
                num_new_blocks=[len(blocks) for _, blocks in growth],
                block_ids=[block for _, blocks in growth for block in blocks],
            )
        ],
    )


def run(rows: Rows, step_plan: step_pb2.StepPlan, token_id: int = 9) -> None:
    """Do what a runner does, sampling the same token everywhere."""
    columns = rows.apply(step_plan)
    rows.advance(columns)
    rows.fork(step_plan)
    forked = [fork.row for fork in step_plan.forked_rows]
    sampled = np.append(columns.row[columns.needs_sample], forked).astype(np.intp)
    rows.append_tokens(sampled, np.full(len(sampled), token_id))


def state(rows: Rows) -> list[bytes]:
    """Everything that a plan can change."""
    arrays: list[NDArray[Any]] = [
        *(rows.token_ids, rows.num_tokens, rows.num_computed_tokens, rows.seed),
        *rows.sampling._columns(),
        *(rows.num_prompt_tokens, rows.is_used),
    ]
    for group in rows._groups:
        arrays += [group.table, group.num_blocks, group.references, group.is_sealed]
    return [array.tobytes() for array in arrays]


def two_rows() -> Rows:
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


def copy(step_plan: step_pb2.StepPlan, row: int, source: int, target: int) -> None:
    """Let the plan copy a block of the row."""
    changes = step_plan.groups[0]
    changes.copy_row.append(row)
    changes.copy_source.append(source)
    changes.copy_target.append(target)


def fork(step_plan: step_pb2.StepPlan, source: int, row: int, num_shared_blocks: int) -> None:
    """Let the plan fork a row."""
    step_plan.forked_rows.add(source_row=source, row=row, num_shared_blocks=[num_shared_blocks])
