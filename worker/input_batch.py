"""Gathers what one forward pass needs from the rows, as one flat batch of tokens."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.kernels.paged_tokens import PagedTokens

from .block_tables import ragged_range
from .models.decoder import StepInput
from .plan_columns import PlanColumns
from .rows import Rows

_GROUP = 0


class InputBatch:
    """Gathers the input of steps, one after another. Only the runner calls it."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last: tuple[PlanColumns, _StepArrays, StepInput] | None = None

    def gather(self, columns: PlanColumns) -> StepInput:
        """Return the step's input; `columns` are of the last `rows.apply`, not computed yet.

        Columns that are those of the step before say nothing new (coasting.py): its input is
        overwritten, and is the answer again.
        """
        if self._last is not None and self._last[0] is columns:
            _, arrays, step = self._last
            self._go_on(columns.row, arrays)
            return step
        arrays = _gather(self._rows, columns)
        is_all = len(arrays.positions) == len(columns.row) and columns.needs_sample.all()
        last = arrays.query_start_loc[1:].astype(np.int64) - 1
        step = arrays.step(None if is_all else last[columns.needs_sample])
        self._last = columns, arrays, step
        return step

    def _go_on(self, row: NDArray[np.intp], arrays: "_StepArrays") -> None:
        """Take the input to the next token of each row, in the same block."""
        for values in (arrays.positions, arrays.slot_mapping, arrays.seq_lens):
            values += 1
        arrays.input_ids[:] = self._rows.token_ids[row, arrays.positions]


@dataclass(frozen=True, slots=True)
class _StepArrays:
    """A step's input, as StepInput and PagedTokens have it, in memory that is the tensors' too."""

    input_ids: NDArray[np.int32]
    positions: NDArray[np.int64]
    slot_mapping: NDArray[np.int64]
    block_tables: NDArray[np.int32]
    seq_lens: NDArray[np.int32]
    query_start_loc: NDArray[np.int32]

    def step(self, logits_indices: NDArray[np.int64] | None) -> StepInput:
        return StepInput(
            input_ids=torch.from_numpy(self.input_ids),
            tokens=PagedTokens(
                positions=torch.from_numpy(self.positions),
                slot_mapping=torch.from_numpy(self.slot_mapping),
                block_tables=torch.from_numpy(self.block_tables),
                seq_lens=torch.from_numpy(self.seq_lens),
                query_start_loc=torch.from_numpy(self.query_start_loc),
            ),
            logits_indices=None if logits_indices is None else torch.from_numpy(logits_indices),
        )


def _gather(rows: Rows, columns: PlanColumns) -> _StepArrays:
    """Return the input of a step.

    For row r with c computed tokens and n new ones, the positions c ... c + n - 1 are computed;
    their KV goes to block block_tables[r][position // block_size] at position % block_size.
    """
    row, num_new = columns.row, columns.num_new_tokens
    block_size = rows.limits.block_size
    starts = rows.num_computed_tokens[row]
    seq_lens = starts + num_new
    query_start_loc = np.zeros(len(row) + 1, np.int32)
    np.cumsum(num_new, out=query_start_loc[1:])

    positions = ragged_range(starts, num_new)
    token_row = np.repeat(row, num_new)
    table = rows.block_tables[_GROUP]
    blocks = table[token_row, positions // block_size].astype(np.int64)
    num_blocks = -(-int(seq_lens.max()) // block_size)
    return _StepArrays(
        input_ids=rows.token_ids[token_row, positions],
        positions=positions,
        slot_mapping=blocks * block_size + positions % block_size,
        block_tables=table[row, :num_blocks],
        seq_lens=seq_lens.astype(np.int32),
        query_start_loc=query_start_loc,
    )
