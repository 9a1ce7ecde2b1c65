"""A step from its first decision to its result: what the plan says, and who is in which row.

Here, and only here, a StepPlan is built. The result is matched through this record, never through
the live tables, because rows are reused while results are on their way.
"""

from dataclasses import dataclass, field
from operator import attrgetter

from octavo.v1 import step_pb2

from .block_pool import Block
from .prompt_budget import PromptBudget
from .request import Sequence
from .roster import Roster

_order = attrgetter("order")

_NOBODY = Roster([])


@dataclass(slots=True)
class GroupChanges:
    """What the step changes in one KV group."""

    grown_rows: list[int] = field(default_factory=list)
    num_new_blocks: list[int] = field(default_factory=list)
    """Of each grown row."""
    new_blocks: list[Block] = field(default_factory=list)
    copies: list[tuple[int, Block, Block]] = field(default_factory=list)
    """(row, source, target)."""


class PlannedStep:
    """One step.

    Attributes:
        roster: those with work, in the order of the plan's columns; set when all are decided on.
        chunks: sequence → (num_new_tokens, needs_sample), where these are not the (1, 1) of a
            sequence that has nothing to catch up with.
        num_prompt_tokens: tokens of these.
        num_prompt_pairs: of each of these tokens with one of its sequence before it.
        prompt_budget: what there is for them; None until there is one of them.
        decided: sequences that were decided on, and do not just coast along.
        sampled: those of them that get a token.
        last_samples: sequences that coast, and may get their last token.
        forks: (source, sibling) pairs; the siblings' rows come after the others in the result.
        fork_rows: rows of the siblings; set by `close`, like the next three.
        samplers: sequences that get a token, in the order of the result.
        logprob_samplers: those of them whose tokens come with log-probabilities.
        marked: sequences whose token may be their first, or the last that they are allowed.
        filled: (group, block, sequence) of each block whose hash waits for this step's result.
        readers: (block, sequence) where a sequence begins with a block that was pending then.
        voided: sequences whose tokens of this step are not taken: they have ended meanwhile, or
            cannot be trusted.
    """

    def __init__(self, step_id: int, num_groups: int) -> None:
        self.step_id = step_id
        self.roster = _NOBODY
        self.chunks: dict[Sequence, tuple[int, bool]] = {}
        self.decided: list[Sequence] = []
        self.sampled: list[Sequence] = []
        self.last_samples: list[Sequence] = []
        self.added: list[Sequence] = []
        self.forks: list[tuple[Sequence, Sequence]] = []
        self.groups = [GroupChanges() for _ in range(num_groups)]
        self.fork_rows: list[int] = []
        self.samplers: list[Sequence] = []
        self.logprob_samplers: list[Sequence] = []
        self.marked: list[Sequence] = []
        self.filled: list[tuple[int, Block, Sequence]] = []
        self.readers: list[tuple[Block, Sequence]] = []
        self.voided: set[Sequence] = set()
        self.has_preempted = False
        self.num_prompt_tokens = 0
        self.num_prompt_pairs = 0.0
        self.prompt_budget: PromptBudget | None = None

    def add(self, sequence: Sequence, num_new_tokens: int, *, needs_sample: bool) -> None:
        """Plan the last computed tokens of a sequence that a decision was taken on."""
        if num_new_tokens != 1 or not needs_sample:
            self.chunks[sequence] = (num_new_tokens, needs_sample)
            self.num_prompt_tokens += num_new_tokens
            middle = sequence.num_computed_tokens - num_new_tokens / 2
            self.num_prompt_pairs += num_new_tokens * middle
        self.decided.append(sequence)
        if needs_sample:
            self.sampled.append(sequence)

    @property
    def sequences(self) -> list[Sequence]:
        """Those with work, in the order of the plan's columns."""
        return self.roster.sequences

    def in_row(self) -> dict[int, Sequence]:
        """Return who was in which row, siblings included; after `close`."""
        siblings = [sibling for _, sibling in self.forks]
        return dict(
            zip(self.roster.rows + self.fork_rows, self.sequences + siblings, strict=True),
        )

    def close(
        self, epoch: int, vocab_size: int, freed_rows: list[int], sealed: list[list[Block]]
    ) -> step_pb2.StepPlan:
        """End the planning and return the plan.

        Args:
            vocab_size: no token from there on can be drawn.
            freed_rows: rows given back since the last plan.
            sealed: for each group, the blocks whose content became final since the last plan.
        """
        plan = self._columns()
        plan.epoch = epoch
        plan.step_id = self.step_id
        for row in freed_rows:
            plan.freed_rows.append(row)
        for sequence in self.added:
            plan.added_rows.append(_added_row(sequence, vocab_size))
        for source, sibling in self.forks:
            plan.forked_rows.append(_forked_row(source, sibling))
        for changes, final in zip(self.groups, sealed, strict=True):
            _write_changes(plan.groups.add(), changes, final)
        siblings = [sibling for _, sibling in self.forks]
        self.fork_rows = [sibling.row for sibling in siblings]
        self.samplers, self.logprob_samplers = self.roster.sequences, self.roster.with_logprobs
        partial = {s for s, (_, needs_sample) in self.chunks.items() if not needs_sample}
        if partial or siblings:
            self.samplers = [s for s in self.sequences if s not in partial] + siblings
            self.logprob_samplers = [s for s in self.samplers if s.wants_logprobs]
        self.marked = [*self.sampled, *siblings, *self.last_samples]
        return plan

    def _columns(self) -> step_pb2.StepPlan:
        """Return a plan with the step's columns."""
        plan, place = self.roster.plan(), 0
        for sequence in sorted(self.chunks, key=_order):
            num_new_tokens, needs_sample = self.chunks[sequence]
            place = self.roster.rows.index(sequence.row, place)
            plan.num_new_tokens[place] = num_new_tokens
            plan.needs_sample[place] = int(needs_sample)
        return plan


def _added_row(sequence: Sequence, vocab_size: int) -> step_pb2.AddedRow:
    request = sequence.request
    held_back = request.stop_token_ids if request.min_tokens else ()
    return step_pb2.AddedRow(
        row=sequence.row,
        request_key=request.key,
        output_index=sequence.output_index,
        token_ids=sequence.token_ids(0, sequence.num_tokens),
        num_prompt_tokens=request.num_prompt_tokens,
        num_computed_tokens=sequence.num_prefix_tokens,
        block_tables=[
            step_pb2.BlockTable(block_ids=[block.block_id for block in table])
            for table in sequence.block_tables
        ],
        sampling=request.sampling,
        seed=sequence.seed,
        adapter=request.adapter,
        # Clients may name stop tokens that the model does not have.
        stop_token_ids=sorted(token for token in held_back if token < vocab_size),
        min_tokens=request.min_tokens,
        bad_words=request.bad_words,
        num_logprobs=request.num_logprobs,
        num_prompt_logprobs=(
            request.num_prompt_logprobs if request.misses_prompt_logprobs else None
        ),
    )


def _forked_row(source: Sequence, sibling: Sequence) -> step_pb2.ForkedRow:
    return step_pb2.ForkedRow(
        source_row=source.row,
        row=sibling.row,
        request_key=sibling.request.key,
        output_index=sibling.output_index,
        seed=sibling.seed,
        num_shared_blocks=[len(table) for table in sibling.block_tables],
    )


def _write_changes(
    blocks: step_pb2.GroupBlocks, changes: GroupChanges, sealed: list[Block]
) -> None:
    """Write a group's changes into its part of the plan."""
    blocks.grown_row.extend(changes.grown_rows)
    blocks.num_new_blocks.extend(changes.num_new_blocks)
    blocks.block_ids.extend([block.block_id for block in changes.new_blocks])
    for row, source, target in changes.copies:
        blocks.copy_row.append(row)
        blocks.copy_source.append(source.block_id)
        blocks.copy_target.append(target.block_id)
    # A block that was handed out again since it was sealed holds something else now.
    still = [block for block in sealed if block.block_hash and not block.pending_step]
    blocks.sealed_block_ids.extend([block.block_id for block in still])
    blocks.sealed_block_hashes = b"".join([block.block_hash for block in still if block.block_hash])
