"""Which rows get a token in a step, and from whose logits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.v1.step_pb2 import StepPlan

from .plan_columns import PlanColumns

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class SampledRows:
    """The rows that a step samples, in the order of its result: those forked in it last.

    Attributes:
        rows: [num_sampled].
        sources: [num_sampled]; the rows themselves, and of forked ones the row they are made of,
            from whose logits they draw.
        logits: [num_sampled], where those logits are among those of the step.
        num_logits: rows that sample without those forked.
    """

    rows: Index
    sources: Index
    logits: Index
    num_logits: int

    def part(self, some: slice) -> "SampledRows":
        """Return some of the rows; their logits are where they were."""
        return SampledRows(self.rows[some], self.sources[some], self.logits[some], self.num_logits)

    @staticmethod
    def of(plan: StepPlan, columns: PlanColumns) -> "SampledRows":
        rows = columns.row[columns.needs_sample]
        places = np.arange(len(rows))
        if not plan.forked_rows:
            return SampledRows(rows, rows, places, len(rows))
        place = {row: i for i, row in enumerate(rows.tolist())}
        forked = np.array([fork.row for fork in plan.forked_rows], np.intp)
        shared = np.array([place[fork.source_row] for fork in plan.forked_rows], np.intp)
        return SampledRows(
            rows=np.concatenate((rows, forked)),
            sources=np.concatenate((rows, rows[shared])),
            logits=np.concatenate((places, shared)),
            num_logits=len(rows),
        )
