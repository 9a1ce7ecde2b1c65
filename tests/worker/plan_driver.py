"""Writes plans for a runner by hand: gives blocks out in order, and says who computes how much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.v1 import common_pb2, step_pb2

GREEDY = common_pb2.SamplingParams(temperature=0.0)


@dataclass
class PlanDriver:
    """A scheduler without judgement: tests decide every step."""

    runner: Any
    """A ModelRunner or a DeviceRunner, for tests to look into."""
    block_size: int
    first_block: int = 0
    num_tokens: dict[int, int] = field(default_factory=dict)
    num_computed: dict[int, int] = field(default_factory=dict)
    tables: dict[int, list[int]] = field(default_factory=dict)
    step_id: int = 0
    _added: list[step_pb2.AddedRow] = field(default_factory=list)
    _freed: list[int] = field(default_factory=list)
    _copies: list[tuple[int, int, int]] = field(default_factory=list)
    _samplers: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._next_block = self.first_block

    def add(
        self,
        row: int,
        token_ids: Sequence[int],
        *,
        sampling: common_pb2.SamplingParams = GREEDY,
        seed: int = 0,
    ) -> None:
        """Add a row with the next step."""
        self.num_tokens[row], self.num_computed[row] = len(token_ids), 0
        self.tables[row] = []
        self._added.append(
            step_pb2.AddedRow(
                row=row,
                token_ids=token_ids,
                num_prompt_tokens=len(token_ids),
                block_tables=[step_pb2.BlockTable()],
                sampling=sampling,
                seed=seed,
            )
        )

    def free(self, row: int) -> None:
        """Free a row with the next step; its blocks are not given out again."""
        self._freed.append(row)

    def copy_last_block(self, row: int) -> None:
        """Give the row its own copy of its last block with the next step."""
        source, target = self.tables[row][-1], self._take_block()
        self.tables[row][-1] = target
        self._copies.append((row, source, target))

    def step(
        self,
        num_new_tokens: Mapping[int, int],
        *,
        forks: Mapping[int, tuple[int, int]] | None = None,
    ) -> step_pb2.StepResult:
        """Compute some tokens of some rows; rows whose last token is among them are sampled.

        Args:
            forks: new row → its source and its seed.
        """
        plan = self.plan(num_new_tokens)
        for row, (source, seed) in (forks or {}).items():
            self.tables[row] = list(self.tables[source])
            self.num_tokens[row] = self.num_tokens[source]
            self.num_computed[row] = self.num_computed[source]
            shared = [len(self.tables[source])]
            plan.forked_rows.append(
                step_pb2.ForkedRow(source_row=source, row=row, seed=seed, num_shared_blocks=shared)
            )
        result: step_pb2.StepResult = self.runner.execute(plan)
        sampled = [row for row, ends in zip(plan.row, plan.needs_sample, strict=True) if ends]
        failed = {error.row for error in result.errors}
        self._samplers[plan.step_id] = [
            row for row in [*sampled, *(forks or {})] if row not in failed
        ]
        for row in self._samplers[plan.step_id]:
            self.num_tokens[row] += 1
        return result

    def tokens_by_row(self, result: step_pb2.StepResult) -> dict[int, list[int]]:
        """Return the tokens that a step sampled, by row."""
        rows = self._samplers[result.step_id]
        return {row: [token] for row, token in zip(rows, result.token_ids, strict=True)}

    def generate(self, row: int, token_ids: Sequence[int], count: int, chunk: int) -> list[int]:
        """Run one row alone to `count` tokens, its prompt `chunk` tokens at a time."""
        self.add(row, token_ids)
        tokens: list[int] = []
        while len(tokens) < count:
            left = self.num_tokens[row] - self.num_computed[row]
            tokens += self.step({row: min(left, chunk)}).token_ids
        return tokens

    def plan(self, num_new_tokens: Mapping[int, int]) -> step_pb2.StepPlan:
        """Return the plan of a step that somebody else runs."""
        self.step_id += 1
        changes = step_pb2.GroupBlocks()
        for row, source, target in self._copies:
            changes.copy_row.append(row)
            changes.copy_source.append(source)
            changes.copy_target.append(target)
        plan = step_pb2.StepPlan(
            epoch=1, step_id=self.step_id, freed_rows=self._freed, added_rows=self._added
        )
        for row, num_new in num_new_tokens.items():
            self.num_computed[row] += num_new
            needed = -(-self.num_computed[row] // self.block_size)
            new_blocks = [self._take_block() for _ in range(needed - len(self.tables[row]))]
            self.tables[row] += new_blocks
            if new_blocks:
                changes.grown_row.append(row)
                changes.num_new_blocks.append(len(new_blocks))
            changes.block_ids.extend(new_blocks)
            plan.row.append(row)
            plan.num_new_tokens.append(num_new)
            plan.needs_sample.append(int(self.num_computed[row] == self.num_tokens[row]))
        plan.groups.append(changes)
        self._added, self._freed, self._copies = [], [], []
        return plan

    def _take_block(self) -> int:
        self._next_block += 1
        return self._next_block - 1
