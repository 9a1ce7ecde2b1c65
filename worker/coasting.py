"""Plans that say nothing new: the rows of the plan before them, one token each.

While no row reaches its block's end, what was checked of the first of these plans holds for all of
them, and so does what was made of it. The scheduler's side of it is scheduler/running_set.py.
"""

import numpy as np
from numpy.typing import NDArray

from octavo.v1.step_pb2 import GroupBlocks, StepPlan

from .plan_columns import PlanColumns


class Coasting:
    """Knows how the next plan looks if it says nothing new. Only Rows writes it."""

    def __init__(self, block_size: int, max_model_len: int) -> None:
        self._block_size = block_size
        self._max_model_len = max_model_len
        self._num_left = 0
        self._expected = StepPlan()
        self._columns: PlanColumns | None = None

    def begin(self, plan: StepPlan, columns: PlanColumns, starts: NDArray[np.int32]) -> None:
        """Let plans go on from this one, which is good, if it is one that others can go on from.

        Args:
            starts: of each row of `columns`, the tokens that were computed before.
        """
        self._num_left = 0
        if plan.forked_rows or not len(starts) or not columns.is_decode:
            return
        ends = starts + 1
        num_slots = int((-ends % self._block_size).min())
        self._num_left = min(num_slots, self._max_model_len - int(ends.max()))
        if self._num_left:
            self._columns = columns
            self._expected = StepPlan(
                epoch=plan.epoch,
                row=plan.row,
                num_new_tokens=plan.num_new_tokens,
                needs_sample=plan.needs_sample,
                groups=[GroupBlocks()] * len(plan.groups),
            )

    def columns_of(self, plan: StepPlan) -> PlanColumns | None:
        """Return the columns, the same object, if the plan says nothing new; else end it."""
        if not self._num_left:
            return None
        # Compared as a whole: whatever a plan may say beside its columns is something new.
        self._expected.step_id = plan.step_id
        if plan != self._expected:
            self._num_left = 0
            return None
        self._num_left -= 1
        return self._columns
