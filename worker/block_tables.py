"""One KV group's block tables as the worker sees them, and the check that no write goes astray.

The scheduler owns the global block table; this is its shadow, kept so that a wrong plan is refused
instead of writing into another request's KV.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from octavo.v1 import step_pb2

from .undo_log import UndoLog

HASH_BYTES = 16

TRAP = int(np.iinfo(np.int32).max)
"""Fills what must not be read, in tests: as an index it fails loudly."""


class BadPlan(Exception):
    """A plan that breaks the contract of step.proto; the text names the row or block and why."""


class BlockTables:
    """The tables of all rows in one KV group.

    Attributes:
        table: int32 [num_rows, max_blocks]; entries from num_blocks[row] on are meaningless.
        num_blocks: int32 [num_rows].
        references: int32 [pool size]; rows whose table holds the block.
        is_sealed: bool [pool size]; the content is final and may be shared.
    """

    def __init__(self, num_rows: int, max_blocks: int, pool_size: int, undo: UndoLog) -> None:
        """All writes go through `undo`; the caller rolls back when a method raises BadPlan."""
        self.table = np.zeros((num_rows, max_blocks), np.int32)
        self.num_blocks = np.zeros(num_rows, np.int32)
        self.references = np.zeros(pool_size, np.int32)
        self.is_sealed = np.zeros(pool_size, np.bool_)
        self._undo = undo
        self._fresh: list[NDArray[np.intp]] = []

    def reset(self) -> None:
        """Forget all rows and seals: a new scheduler starts from an empty pool."""
        self.num_blocks[:] = 0
        self.references[:] = 0
        self.is_sealed[:] = False

    def begin(self, changes: step_pb2.GroupBlocks) -> None:
        """Begin a plan: seal what it says is final. A block may be sealed and taken anew in it."""
        self._fresh.clear()
        sealed = self._blocks(changes.sealed_block_ids, "sealed_block_ids")
        if len(changes.sealed_block_hashes) != HASH_BYTES * len(sealed):
            raise BadPlan(
                f"{len(changes.sealed_block_hashes)} bytes of sealed_block_hashes for"
                f" {len(sealed)} sealed blocks; each takes {HASH_BYTES}"
            )
        if len(sealed):
            self._undo.write(self.is_sealed, sealed, True)

    def free(self, row: int, poison: int | None = None) -> None:
        """Give the row's blocks back; `poison` fills its table."""
        blocks = self.table[row, : self.num_blocks[row]].copy()
        self._undo.write(self.references, blocks, self.references[blocks] - 1)
        self._undo.write(self.num_blocks, row, 0)
        if poison is not None:
            self._undo.write(self.table, row, poison)

    def add(self, row: int, block_table: step_pb2.BlockTable, num_held: int) -> None:
        """Give a new row its blocks; the first `num_held` hold its computed tokens already."""
        blocks = self._blocks(block_table.block_ids, f"the table of added row {row}")
        if len(blocks) > self.table.shape[1]:
            raise BadPlan(
                f"row {row} is added with {len(blocks)} blocks; a table has room for"
                f" {self.table.shape[1]}"
            )
        if len(blocks) < num_held:
            raise BadPlan(
                f"row {row} is added with {len(blocks)} blocks; its computed tokens lie in"
                f" {num_held}"
            )
        if len(set(blocks.tolist())) != len(blocks):
            raise BadPlan(f"row {row} is added with the same block twice")
        self._undo.write(self.table, (row, slice(0, len(blocks))), blocks)
        self._undo.write(self.num_blocks, row, len(blocks))
        self._undo.write(self.references, blocks, self.references[blocks] + 1)
        self._take(blocks[num_held:])

    def grow(self, changes: step_pb2.GroupBlocks, is_used: NDArray[np.bool_]) -> None:
        """Append the plan's new blocks to the tables of the rows that grow."""
        rows, num_new = column(changes.grown_row), column(changes.num_new_blocks)
        if len(num_new) != len(rows):
            raise BadPlan(f"num_new_blocks has {len(num_new)} entries, grown_row has {len(rows)}")
        blocks = self._blocks(changes.block_ids, "block_ids")
        if num_new.sum() != len(blocks):
            raise BadPlan(f"num_new_blocks sum to {num_new.sum()}, block_ids has {len(blocks)}")
        if not len(rows):
            return
        if rows.max() >= len(is_used) or not is_used[rows].all():
            unknown = next(row for row in rows if row >= len(is_used) or not is_used[row])
            raise BadPlan(f"grown_row names row {unknown}, which is not in use")
        if len(np.unique(rows)) != len(rows):
            raise BadPlan("a row is twice in grown_row")
        ends = self.num_blocks[rows] + num_new
        if (ends > self.table.shape[1]).any():
            row = int(rows[np.argmax(ends)])
            raise BadPlan(f"the table of row {row} grows past {self.table.shape[1]} blocks")
        places = ragged_range(self.num_blocks[rows], num_new)
        self._undo.write(self.table, (np.repeat(rows, num_new), places), blocks)
        self._undo.write(self.num_blocks, rows, ends)
        # A block listed twice counts twice, and is noticed.
        distinct, times = np.unique(blocks, return_counts=True)
        self._undo.write(self.references, distinct, self.references[distinct] + times)
        self._take(distinct)

    def copy(self, changes: step_pb2.GroupBlocks, is_used: NDArray[np.bool_]) -> None:
        """Replace blocks by the copies that the plan makes of them."""
        rows, sources = changes.copy_row, changes.copy_source
        targets = self._blocks(changes.copy_target, "copy_target")
        if not len(rows) == len(sources) == len(targets):
            raise BadPlan(
                f"copy_row, copy_source and copy_target have {len(rows)}, {len(sources)} and"
                f" {len(targets)} entries"
            )
        if not set(sources).isdisjoint(targets.tolist()):
            raise BadPlan("a block is both source and target of a copy in one step")
        for row, source, target in zip(rows, sources, targets, strict=True):
            if row >= len(is_used) or not is_used[row]:
                raise BadPlan(f"copy_row names row {row}, which is not in use")
            (places,) = np.nonzero(self.table[row, : self.num_blocks[row]] == source)
            if not len(places):
                raise BadPlan(f"copy_source names block {source}, which row {row} does not hold")
            self._undo.write(self.table, (row, places[0]), target)
            self._undo.write(self.references, source, self.references[source] - 1)
            self._undo.write(self.references, target, self.references[target] + 1)
        self._take(targets)

    def check_exclusive(self) -> None:
        """Raise BadPlan if a block that the plan hands out as new is held by another row."""
        for blocks in self._fresh:
            held = self.references[blocks] != 1
            if held.any():
                raise BadPlan(f"block {blocks[np.argmax(held)]} is handed out, but is still held")

    def check_writable(
        self, rows: NDArray[np.intp], first: NDArray[np.int64], last: NDArray[np.int64]
    ) -> None:
        """Raise BadPlan unless the rows hold their blocks first..last, alone and not sealed."""
        short = last >= self.num_blocks[rows]
        if short.any():
            i = int(np.argmax(short))
            raise BadPlan(
                f"row {rows[i]} computes into its block number {last[i]}, its table has"
                f" {self.num_blocks[rows[i]]} blocks"
            )
        num_written = last - first + 1
        owners = np.repeat(rows, num_written)
        blocks = self.table[owners, ragged_range(first, num_written)]
        for is_wrong, why in (
            (self.references[blocks] != 1, "which other rows share"),
            (self.is_sealed[blocks], "which is sealed"),
        ):
            if is_wrong.any():
                i = int(np.argmax(is_wrong))
                raise BadPlan(f"row {owners[i]} would write into block {blocks[i]}, {why}")

    def share(self, source: int, row: int) -> None:
        """Let `row`, which is new, hold all blocks of `source`."""
        count = self.num_blocks[source]
        blocks = self.table[source, :count]
        self.table[row, :count] = blocks
        self.num_blocks[row] = count
        self.references[blocks] += 1

    def _take(self, blocks: NDArray[np.intp]) -> None:
        """Note blocks handed out as new: whatever they held is not valid any more."""
        if len(blocks):
            self._undo.write(self.is_sealed, blocks, False)
            self._fresh.append(blocks)

    def _blocks(self, ids: Sequence[int], field: str) -> NDArray[np.intp]:
        blocks = np.fromiter(ids, np.intp, len(ids))
        if len(blocks) and blocks.max() >= len(self.references):
            raise BadPlan(
                f"{field} names block {blocks.max()}; there are {len(self.references)} blocks"
            )
        return blocks


def column(values: Sequence[int]) -> NDArray[np.int64]:
    """Return a repeated field as an array."""
    return np.fromiter(values, np.int64, len(values))


def ragged_range(starts: NDArray[np.integer], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return starts[0], starts[0]+1, ... (counts[0] of them), then the same for each next one."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - counts), counts) + np.arange(total)
