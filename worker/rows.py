"""The rows of a worker: everything about a running output that does not change from step to step.

A row is taken when its output is first planned and given back when that finishes or is preempted.
A step uses it in this order:

    columns = rows.apply(plan)      freed, added, grown, copied; all of it checked
    rows.advance(columns)           after its input is gathered: that counts as computed
    ...forward over columns...
    rows.fork(plan)                 siblings appear, with the same tokens and blocks
    rows.append_tokens(rows, tokens)  for the rows sampled, siblings included

Idea of permanent rows and plans of deltas: vLLM's model runner v2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.startup import StartupError
from octavo.v1 import step_pb2

from .block_tables import TRAP, BadPlan, BlockTables, column
from .coasting import Coasting
from .plan_columns import PlanColumns
from .row_sampling import RowSampling
from .undo_log import UndoLog

__all__ = ["BadPlan", "RowLimits", "Rows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLimits:
    """What a plan may not exceed; told to the scheduler in WorkerReady."""

    num_rows: int
    max_model_len: int
    block_size: int
    num_blocks: tuple[int, ...]
    """One for each KV group."""
    vocab_size: int
    max_num_batched_tokens: int


class Rows:
    """All rows, as arrays; a plan that breaks the contract raises BadPlan and changes nothing.

    Attributes:
        token_ids: int32 [num_rows, max_model_len + 1]; prompt, then output.
        num_tokens: int32 [num_rows]; tokens known.
        num_computed_tokens: int32 [num_rows]; tokens whose KV is in the blocks.
        block_tables: for each group, int32 [num_rows, max_blocks].
        num_blocks: for each group, int32 [num_rows].
        seed: uint64 [num_rows]; the output's own.
        num_prompt_tokens: int32 [num_rows].
        sampling: the sampling parameters of all rows.
        is_used: bool [num_rows].
    """

    def __init__(self, limits: RowLimits, *, poison: bool = False) -> None:
        """Take the memory; raises StartupError if there is not enough.

        `poison` fills whatever is not in use with trap values: for tests.
        """
        self.limits = limits
        self.epoch = 0
        self._undo = UndoLog()
        self._coasting = Coasting(limits.block_size, limits.max_model_len)
        try:
            self._allocate()
        except (MemoryError, ValueError) as error:  # numpy's word for more than can be addressed.
            raise StartupError(
                f"no memory for {limits.num_rows:,} rows of {limits.max_model_len:,} tokens:"
                f" {error}. Lower --max-num-seqs or --max-model-len."
            ) from error
        self._poison = poison
        if poison:
            for row in range(limits.num_rows):
                self._poison_row(row)
            for table in self.block_tables:
                table[:] = TRAP

    def _allocate(self) -> None:
        limits = self.limits
        self.token_ids = np.zeros((limits.num_rows, limits.max_model_len + 1), np.int32)
        self.num_tokens = np.zeros(limits.num_rows, np.int32)
        self.num_computed_tokens = np.zeros(limits.num_rows, np.int32)
        self.seed = np.zeros(limits.num_rows, np.uint64)
        self.num_prompt_tokens = np.zeros(limits.num_rows, np.int32)
        self.is_used = np.zeros(limits.num_rows, np.bool_)
        self.sampling = RowSampling(limits.num_rows, limits.vocab_size, self._undo)
        max_blocks = -(-(limits.max_model_len + 1) // limits.block_size)
        self._groups = [
            BlockTables(limits.num_rows, max_blocks, pool_size, self._undo)
            for pool_size in limits.num_blocks
        ]
        self.block_tables = [group.table for group in self._groups]
        self.num_blocks = [group.num_blocks for group in self._groups]

    def apply(self, plan: step_pb2.StepPlan) -> PlanColumns:
        """Check the plan and make its changes to the rows, all or none.

        The first plan of a new scheduler finds the rows empty. A plan that says nothing new, and is
        the next token of each row of the last one, gets the very columns of that one.
        """
        if (columns := self._coasting.columns_of(plan)) is not None:
            return columns
        if plan.epoch > self.epoch:
            self._reset(plan.epoch)
        self._undo.clear()
        try:
            columns = self._apply(plan)
        except BaseException:
            self._undo.roll_back()
            raise
        self._coasting.begin(plan, columns, self.num_computed_tokens[columns.row])
        return columns

    def advance(self, columns: PlanColumns) -> None:
        """Count the step's tokens as computed, once its input and its prompt runs are known."""
        self.num_computed_tokens[columns.row] += columns.num_new_tokens

    def fork(self, plan: step_pb2.StepPlan) -> None:
        """Make the plan's forked rows; after `advance`, before the source's token is appended."""
        for forked in plan.forked_rows:
            source, row = forked.source_row, forked.row
            count = self.num_tokens[source]
            self.token_ids[row, :count] = self.token_ids[source, :count]
            for values in (self.num_tokens, self.num_prompt_tokens, self.num_computed_tokens):
                values[row] = values[source]
            self.sampling.fork(source, row)
            for group in self._groups:
                group.share(source, row)
            self.seed[row] = forked.seed
            self.is_used[row] = True

    def append_tokens(self, rows: NDArray[np.intp], token_ids: NDArray[np.int64]) -> None:
        """Append the token sampled for each of these rows.

        A row whose sampling failed gets any token: plans that are under way count on its position,
        and the scheduler drops what they bring.
        """
        positions = self.num_tokens[rows]
        self.token_ids[rows, positions] = token_ids
        self.num_tokens[rows] = positions + 1

    def append_unknown_tokens(self, rows: NDArray[np.intp]) -> None:
        """Count a token that was sampled for each row; which ones, only a device knows."""
        self.num_tokens[rows] += 1

    def _apply(self, plan: step_pb2.StepPlan) -> PlanColumns:
        if len(plan.groups) != len(self._groups):
            raise BadPlan(f"the plan has {len(plan.groups)} KV groups, not {len(self._groups)}")
        for group, changes in zip(self._groups, plan.groups, strict=True):
            group.begin(changes)
        for row in plan.freed_rows:
            self._free(row)
        for added in plan.added_rows:
            self._add(added)
        columns = self._columns(plan)
        for group, changes in zip(self._groups, plan.groups, strict=True):
            if any(changes.num_front_blocks_dropped):
                raise BadPlan("num_front_blocks_dropped: this worker has no sliding windows")
            group.grow(changes, self.is_used)
            group.copy(changes, self.is_used)
            group.check_exclusive()
        self._check_tokens(columns)
        self._check_forks(plan, columns)
        return columns

    def _reset(self, epoch: int) -> None:
        self.epoch = epoch
        self.is_used[:] = False
        for group in self._groups:
            group.reset()

    def _free(self, row: int) -> None:
        self._check_used(row, "freed_rows")
        self._undo.write(self.is_used, row, False)
        for group in self._groups:
            group.free(row, TRAP if self._poison else None)
        if self._poison:
            self._poison_row(row)

    def _poison_row(self, row: int) -> None:
        for values in (self.token_ids, self.num_tokens, self.num_prompt_tokens):
            self._undo.write(values, row, TRAP)
        self._undo.write(self.num_computed_tokens, row, TRAP)
        self._undo.write(self.seed, row, TRAP)
        self.sampling.poison(row)

    def _add(self, added: step_pb2.AddedRow) -> None:
        row, limits = added.row, self.limits
        self._check_free(row, "added_rows")
        tokens = column(added.token_ids)
        if not 1 <= added.num_prompt_tokens <= len(tokens) <= limits.max_model_len:
            raise BadPlan(
                f"row {row} is added with {len(tokens)} tokens, {added.num_prompt_tokens} of them"
                f" prompt; the context holds {limits.max_model_len}"
            )
        if tokens.max() >= limits.vocab_size:
            raise BadPlan(
                f"row {row} is added with token {tokens.max()}; there are {limits.vocab_size}"
            )
        if added.num_computed_tokens >= len(tokens):
            raise BadPlan(
                f"row {row} is added with {added.num_computed_tokens} of {len(tokens)} tokens"
                " computed; at least one has to be left"
            )
        if added.adapter or added.media or added.HasField("grammar"):
            raise BadPlan(f"row {row} wants an adapter, media or a grammar: not offered")
        if len(added.block_tables) != len(self._groups):
            raise BadPlan(f"row {row} is added with {len(added.block_tables)} block tables")
        num_held = -(-added.num_computed_tokens // limits.block_size)
        for group, block_table in zip(self._groups, added.block_tables, strict=True):
            group.add(row, block_table, num_held)
        write = self._undo.write
        write(self.token_ids, (row, slice(0, len(tokens))), tokens)
        write(self.num_tokens, row, len(tokens))
        write(self.num_prompt_tokens, row, added.num_prompt_tokens)
        write(self.num_computed_tokens, row, added.num_computed_tokens)
        write(self.seed, row, added.seed)
        write(self.is_used, row, True)
        self.sampling.set(added)

    def _columns(self, plan: step_pb2.StepPlan) -> PlanColumns:
        row, num_new, sample = (
            column(plan.row),
            column(plan.num_new_tokens),
            column(plan.needs_sample),
        )
        if not len(row) == len(num_new) == len(sample):
            raise BadPlan(
                f"row, num_new_tokens and needs_sample have {len(row)}, {len(num_new)} and"
                f" {len(sample)} entries"
            )
        if any(plan.max_draft_tokens):
            raise BadPlan("max_draft_tokens: this worker makes no drafts")
        if len(row) and (row.max() >= self.limits.num_rows or not self.is_used[row].all()):
            unknown = next(i for i in plan.row if i >= len(self.is_used) or not self.is_used[i])
            raise BadPlan(f"row {unknown} has work, but is not in use")
        if len(set(plan.row)) != len(row):
            raise BadPlan("a row has work twice in one step")
        if len(row) and num_new.min() < 1:
            raise BadPlan(f"row {row[np.argmin(num_new)]} has work of no tokens")
        if num_new.sum() > self.limits.max_num_batched_tokens:
            raise BadPlan(
                f"the step has {num_new.sum()} tokens; this worker has memory for"
                f" {self.limits.max_num_batched_tokens}"
            )
        return PlanColumns(row.astype(np.intp), num_new, sample.astype(np.bool_))

    def _check_tokens(self, columns: PlanColumns) -> None:
        """Check that all tokens to compute are known, and that their KV has a place of its own."""
        rows = columns.row
        starts = self.num_computed_tokens[rows].astype(np.int64)
        ends = starts + columns.num_new_tokens
        known = self.num_tokens[rows]
        wrong = np.where(columns.needs_sample, ends != known, ends > known)
        if wrong.any():
            i = int(np.argmax(wrong))
            raise BadPlan(
                f"row {rows[i]} has {known[i]} tokens; the plan computes {starts[i]} to {ends[i]}"
                + (" and samples the next" if columns.needs_sample[i] else "")
            )
        if (ends > self.limits.max_model_len).any():
            raise BadPlan(f"row {rows[np.argmax(ends)]} is planned past the context")
        first = starts // self.limits.block_size
        last = (ends - 1) // self.limits.block_size
        for group in self._groups:
            group.check_writable(rows, first, last)

    def _check_forks(self, plan: step_pb2.StepPlan, columns: PlanColumns) -> None:
        if not plan.forked_rows:
            return
        sampled = set(columns.row[columns.needs_sample].tolist())
        taken = set()
        for forked in plan.forked_rows:
            self._check_free(forked.row, "forked_rows")
            if forked.row in taken:
                raise BadPlan(f"row {forked.row} is forked twice")
            taken.add(forked.row)
            if forked.source_row not in sampled:
                raise BadPlan(f"row {forked.source_row} is forked, but not sampled in this step")
            held = [int(counts[forked.source_row]) for counts in self.num_blocks]
            if list(forked.num_shared_blocks) != held:
                raise BadPlan(
                    f"row {forked.row} would share {list(forked.num_shared_blocks)} blocks; row"
                    f" {forked.source_row} holds {held}"
                )

    def _check_used(self, row: int, field: str) -> None:
        if row >= self.limits.num_rows or not self.is_used[row]:
            raise BadPlan(f"{field} names row {row}, which is not in use")

    def _check_free(self, row: int, field: str) -> None:
        if row >= self.limits.num_rows:
            raise BadPlan(f"{field} names row {row}; there are {self.limits.num_rows} rows")
        if self.is_used[row]:
            raise BadPlan(f"{field} names row {row}, which is in use")
