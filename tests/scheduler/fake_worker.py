"""A worker on simulated KV memory: it knows which tokens each slot was written for.

Every (KV group, block, offset) holds the history that it was written with: the tenant and all
tokens up to that position. A step checks that each position a row attends to holds exactly the
row's own history, so a block used after it was freed, a wrong prefix hit, a missing copy or a wrong
slot is noticed where it happens. Tokens are a hash of history and seed: what a stream has to be is
known without any scheduler.
"""

import zlib
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np

from octavo.block_hash import extend_chain, root_hash
from octavo.scheduler.config import SchedulerConfig
from octavo.v1 import step_pb2
from octavo.worker.rows import RowLimits, Rows

NUM_TOKENS = 3
"""Right tokens are below it."""
GARBAGE = 7
"""What comes out of a row whose KV is spoilt."""
VOCAB_SIZE = 8

History = tuple[str, tuple[int, ...]]
"""(tenant, tokens)."""
SPOILT: History = ("spoilt", ())


def next_token(token_ids: Sequence[int], seed: int) -> int:
    """Return the token that follows; every one of them depends on all before."""
    return zlib.crc32(bytes(token_ids), seed) % 1009 % NUM_TOKENS


@dataclass(slots=True)
class _Row:
    tenant: str
    token_ids: list[int]
    num_computed: int
    tables: list[list[int]]
    seed: int

    def history(self, position: int) -> History:
        return self.tenant, tuple(self.token_ids[: position + 1])


class FakeWorker:
    """Executes plans, and raises AssertionError for one that no worker should be given.

    Attributes:
        tenants: request key → tenant; the test fills it.
        num_copies: blocks copied so far.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._block_size = config.block_size
        self.tenants: dict[bytes, str] = {}
        self.num_copies = 0
        num_groups = len(config.kv_groups)
        self._memory: list[dict[tuple[int, int], History]] = [{} for _ in range(num_groups)]
        self._sealed: list[set[int]] = [set() for _ in range(num_groups)]
        self._rows: dict[int, _Row] = {}
        # The checks of the real worker, beside our own.
        self._real_rows = Rows(
            RowLimits(
                num_rows=config.max_num_seqs,
                max_model_len=config.max_model_len,
                block_size=config.block_size,
                num_blocks=tuple(group.num_blocks for group in config.kv_groups),
                vocab_size=VOCAB_SIZE,
                max_num_batched_tokens=config.max_num_batched_tokens,
            ),
            poison=True,
        )

    def execute(self, plan: step_pb2.StepPlan, failing: Container[int] = ()) -> step_pb2.StepResult:
        """Run a step.

        Args:
            failing: indices into the result's rows; these fail, and spoil what they wrote.
        """
        columns = self._real_rows.apply(plan)
        self._change_rows(plan)
        rows, num_new = list(plan.row), list(plan.num_new_tokens)
        spoilt = self._forward(rows, num_new)
        self._real_rows.advance(columns)
        self._real_rows.fork(plan)
        for forked in plan.forked_rows:
            self._fork(forked)
            if forked.source_row in spoilt:
                spoilt.add(forked.row)
        rows += [forked.row for forked in plan.forked_rows]
        result = step_pb2.StepResult(epoch=plan.epoch, step_id=plan.step_id)
        needs_sample = [*plan.needs_sample, *([1] * len(plan.forked_rows))]
        for index, (row, sample) in enumerate(zip(rows, needs_sample, strict=True)):
            has_failed = index in failing
            if has_failed:
                result.errors.add(row=row, message="not a number")
                self._spoil(row, num_new[index] if index < len(num_new) else 0)
            token = self._sample(row, is_spoilt=has_failed or row in spoilt) if sample else None
            if token is not None and not has_failed:
                result.token_ids.append(token)
        return result

    def _change_rows(self, plan: step_pb2.StepPlan) -> None:
        """Apply what the plan says before the forward pass."""
        for group, changes in enumerate(plan.groups):
            self._seal(group, changes)
        for row in plan.freed_rows:
            del self._rows[row]
        for added in plan.added_rows:
            self._add(added)
        for group, changes in enumerate(plan.groups):
            self._grow(group, changes)
            self._copy(group, changes)

    def _add(self, added: step_pb2.AddedRow) -> None:
        assert added.row not in self._rows, f"row {added.row} is taken"
        tables = [list(table.block_ids) for table in added.block_tables]
        assert added.num_computed_tokens < len(added.token_ids), "nothing is left to compute"
        self._rows[added.row] = _Row(
            self.tenants[added.request_key],
            list(added.token_ids),
            added.num_computed_tokens,
            tables,
            added.seed,
        )
        num_held = added.num_computed_tokens // self._block_size
        for sealed, table in zip(self._sealed, tables, strict=True):
            sealed.difference_update(table[num_held:])

    def _grow(self, group: int, changes: step_pb2.GroupBlocks) -> None:
        block_ids = list(changes.block_ids)
        for row, count in zip(changes.grown_row, changes.num_new_blocks, strict=True):
            self._rows[row].tables[group].extend(block_ids[:count])
            self._sealed[group].difference_update(block_ids[:count])
            del block_ids[:count]
        assert not block_ids, "block_ids is longer than num_new_blocks say"

    def _copy(self, group: int, changes: step_pb2.GroupBlocks) -> None:
        memory = self._memory[group]
        copies = zip(changes.copy_row, changes.copy_source, changes.copy_target, strict=True)
        for row, source, target in copies:
            table = self._rows[row].tables[group]
            table[table.index(source)] = target
            self._sealed[group].discard(target)
            for offset in range(self._block_size):
                memory.pop((target, offset), None)
                if (source, offset) in memory:
                    memory[target, offset] = memory[source, offset]
            self.num_copies += 1

    def _forward(self, rows: list[int], num_new: list[int]) -> set[int]:
        """Check what the rows read, then write; returns the rows that read something spoilt."""
        spoilt = {row for row in rows if self._reads_spoilt(row)}
        written: Counter[tuple[int, int, int]] = Counter()
        for row, count in zip(rows, num_new, strict=True):
            state = self._rows[row]
            for position in range(state.num_computed, state.num_computed + count):
                assert position < len(state.token_ids), f"row {row}: position {position} is unknown"
                for group in range(len(self._memory)):
                    slot = self._slot(group, state, position)
                    self._check_writable(group, slot[0])
                    written[group, *slot] += 1
                    history = SPOILT if row in spoilt else state.history(position)
                    self._memory[group][slot] = history
            state.num_computed += count
        assert all(times == 1 for times in written.values()), "a slot is written twice in one step"
        return spoilt

    def _reads_spoilt(self, row: int) -> bool:
        """Check that the row's computed positions hold its own history."""
        state = self._rows[row]
        is_spoilt = False
        for group in range(len(self._memory)):
            for position in range(state.num_computed):
                slot = self._slot(group, state, position)
                found = self._memory[group].get(slot)
                is_spoilt |= found is SPOILT
                assert found is SPOILT or found == state.history(position), (
                    f"row {row} would read {found} at position {position}, not its own history"
                )
        return is_spoilt

    def _check_writable(self, group: int, block_id: int) -> None:
        holders = sum(block_id in state.tables[group] for state in self._rows.values())
        assert holders == 1, f"block {block_id} is written while {holders} rows hold it"
        assert block_id not in self._sealed[group], f"block {block_id} is written and sealed"

    def _fork(self, forked: step_pb2.ForkedRow) -> None:
        source = self._rows[forked.source_row]
        assert forked.row not in self._rows, f"row {forked.row} is taken"
        assert [len(table) for table in source.tables] == list(forked.num_shared_blocks)
        self._rows[forked.row] = _Row(
            source.tenant,
            source.token_ids.copy(),
            source.num_computed,
            [table.copy() for table in source.tables],
            forked.seed,
        )

    def _sample(self, row: int, *, is_spoilt: bool) -> int:
        state = self._rows[row]
        assert state.num_computed == len(state.token_ids), (
            f"row {row} samples before its last token"
        )
        token = GARBAGE if is_spoilt else next_token(state.token_ids, state.seed)
        state.token_ids.append(token)
        self._real_rows.append_tokens(np.array([row]), np.array([token]))
        return token

    def _spoil(self, row: int, num_new: int) -> None:
        """Spoil the slots that the row wrote in this step."""
        state = self._rows[row]
        for position in range(state.num_computed - num_new, state.num_computed):
            for group, memory in enumerate(self._memory):
                memory[self._slot(group, state, position)] = SPOILT

    def _seal(self, group: int, changes: step_pb2.GroupBlocks) -> None:
        """Check that sealed blocks hold what their hashes say."""
        hashes = changes.sealed_block_hashes
        assert len(hashes) == 16 * len(changes.sealed_block_ids)
        for index, block_id in enumerate(changes.sealed_block_ids):
            tenant, token_ids = self._memory[group][block_id, self._block_size - 1]
            root = root_hash(self._config.model_hash, tenant)
            chain = extend_chain(root, token_ids, self._block_size)
            assert hashes[16 * index : 16 * index + 16] == chain[-1], (
                f"block {block_id} is sealed as something else than it holds"
            )
            assert len(token_ids) % self._block_size == 0
            self._sealed[group].add(block_id)

    def _slot(self, group: int, state: _Row, position: int) -> tuple[int, int]:
        table = state.tables[group]
        place, offset = divmod(position, self._block_size)
        assert place < len(table), f"position {position} lies past the table's {len(table)} blocks"
        return table[place], offset
