"""Block tables: which blocks hold a sequence's KV, in every KV group.

A table covers the tokens that are planned. A block is written by one sequence only, and never again
once it is full: whoever shares the partial last block after a fork and writes first gets a copy,
and the last sharer writes in place.
"""

from itertools import islice

from octavo.block_hash import block_hash

from .block_pool import Block, BlockPool
from .config import SchedulerConfig
from .planned_step import PlannedStep
from .prefix_cache import PrefixCache
from .request import Sequence


class KVGroup:
    """The pool and the prefix cache of one group of layers.

    Attributes:
        newly_sealed: blocks whose content became final since the last plan.
        pinned: sources of the copies of the step being planned; they may not become targets in it.
    """

    def __init__(self, num_blocks: int) -> None:
        self.pool = BlockPool(num_blocks)
        self.cache = PrefixCache()
        self.newly_sealed: list[Block] = []
        self.pinned: list[Block] = []

    def take(self, count: int) -> list[Block]:
        """Hand out blocks; what they cached is forgotten."""
        blocks = []
        for _ in range(count):
            block = self.pool.take()
            if block.block_hash is not None:
                self.cache.forget(block)
            blocks.append(block)
        return blocks

    def is_shared(self, block: Block) -> bool:
        """Whether another table holds the block."""
        return block.ref_count > 1 and block.ref_count - self.pinned.count(block) > 1


class KVCacheManager:
    """Block tables of all sequences. Only the scheduler's decisions call this."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._block_size = config.block_size
        self._is_caching = config.enable_prefix_caching
        self.reset()

    def reset(self) -> None:
        """Forget everything: the workers' memory is gone."""
        self.groups = [KVGroup(group.num_blocks) for group in self._config.kv_groups]

    def admit(self, sequence: Sequence, step: PlannedStep, headroom: int) -> bool:
        """Give a waiting sequence blocks for all its known tokens, a cached prefix first.

        All or nothing, so that a long prompt is not begun and thrown out half-way. At least one
        token is left to compute.

        Args:
            headroom: blocks that have to be left over.
        """
        num_blocks = -(-sequence.num_tokens // self._block_size)
        prefixes = self._cached_prefix(sequence, step)
        num_hits = len(prefixes[0])
        for group, prefix in zip(self.groups, prefixes, strict=True):
            num_revived = sum(block.ref_count == 0 for block in prefix)
            if num_blocks - num_hits + num_revived + headroom > group.pool.num_free:
                return False
        for group, prefix in zip(self.groups, prefixes, strict=True):
            for block in prefix:
                group.pool.hold(block)
                group.cache.touch(block)
                if block.pending_step:
                    step.readers.append((block, sequence))
            sequence.block_tables.append(prefix + group.take(num_blocks - num_hits))
        sequence.num_writable_tokens = num_blocks * self._block_size
        sequence.num_registered_blocks = num_hits
        sequence.num_prefix_tokens = num_hits * self._block_size
        sequence.num_computed_tokens = sequence.num_prefix_tokens
        return True

    def grow(self, sequence: Sequence, num_tokens: int, step: PlannedStep) -> bool:
        """Make room for the sequence's first `num_tokens` tokens; False if blocks are short."""
        if num_tokens <= sequence.num_writable_tokens:
            return True
        num_blocks = -(-num_tokens // self._block_size)
        place = sequence.num_computed_tokens // self._block_size
        for index, table in enumerate(sequence.block_tables):
            group = self.groups[index]
            needs_copy = place < len(table) and group.is_shared(table[place])
            if num_blocks - len(table) + needs_copy > group.pool.num_free:
                return False
        for index, table in enumerate(sequence.block_tables):
            if place < len(table) and self.groups[index].is_shared(table[place]):
                self._copy_on_write(index, sequence, place, step)
            if num_new_blocks := num_blocks - len(table):
                blocks = self.groups[index].take(num_new_blocks)
                table += blocks
                changes = step.groups[index]
                changes.grown_rows.append(sequence.row)
                changes.num_new_blocks.append(num_new_blocks)
                changes.new_blocks += blocks
        sequence.num_writable_tokens = num_blocks * self._block_size
        return True

    def fork(self, source: Sequence, sibling: Sequence) -> None:
        """Let `sibling` share all blocks of `source`, the partial last one included."""
        for group, table in zip(self.groups, source.block_tables, strict=True):
            for block in table:
                group.pool.hold(block)
            sibling.block_tables.append(table.copy())
        sibling.num_registered_blocks = source.num_registered_blocks
        sibling.num_computed_tokens = sibling.num_prefix_tokens = source.num_computed_tokens
        source.num_writable_tokens = sibling.num_writable_tokens = source.num_computed_tokens

    def register(self, sequence: Sequence, step: PlannedStep | None) -> None:
        """Let others find the sequence's full blocks whose tokens are known.

        Args:
            step: the last plan with the sequence, if its result is not back: what it fills is
                pending until then.
        """
        num_full = min(sequence.num_computed_tokens, sequence.num_tokens) // self._block_size
        first = sequence.num_registered_blocks
        if num_full <= first or not self._is_caching:
            return
        self._extend_hashes(sequence, num_full)
        pending_step = 0 if step is None else step.step_id
        for index, table in enumerate(sequence.block_tables):
            group = self.groups[index]
            for place in range(first, num_full):
                block = table[place]
                # One with a hash was registered by the sequence it was shared with at a fork.
                if block.block_hash is None and group.cache.add(
                    block, sequence.block_hashes[place], pending_step
                ):
                    if step is None:
                        group.newly_sealed.append(block)
                    else:
                        step.filled.append((index, block, sequence))
        sequence.num_registered_blocks = num_full

    def release(self, sequence: Sequence) -> None:
        """Take all blocks back, the last ones first, so that a prefix outlives what follows it."""
        for index, table in enumerate(sequence.block_tables):
            group = self.groups[index]
            for place in range(len(table) - 1, -1, -1):
                group.pool.release(table[place])
                if table[place].block_hash is None and place < sequence.num_registered_blocks:
                    # Its content is cached in another block, which was as good as used.
                    twin = group.cache.get(sequence.block_hashes[place])
                    if twin is not None:
                        group.pool.touch(twin)
        sequence.block_tables = []
        sequence.num_registered_blocks = 0

    def num_private_tokens(self, sequence: Sequence) -> int:
        """Return how much work is lost with the blocks that only this sequence holds.

        Cached or not: they are wanted because blocks are short, and will be overwritten.
        """
        num_shared = 0
        for block in sequence.block_tables[0]:
            if block.ref_count == 1:
                break
            num_shared += 1
        return max(sequence.num_computed_tokens - num_shared * self._block_size, 0)

    def end_step(self) -> list[list[Block]]:
        """End the planning of a step; returns, for each group, the blocks to tell as sealed."""
        sealed = []
        for group in self.groups:
            for block in group.pinned:
                group.pool.release(block)
            group.pinned.clear()
            sealed.append(group.newly_sealed)
            group.newly_sealed = []
        return sealed

    def seal(self, step: PlannedStep) -> None:
        """Make the content of what the step filled final: its result is good."""
        for index, block, _ in step.filled:
            if block.pending_step == step.step_id:
                block.pending_step = 0
                self.groups[index].newly_sealed.append(block)

    def forget(self, step: PlannedStep, sequences: set[Sequence]) -> set[Block]:
        """Un-hash what the sequences filled in the step; returns these blocks."""
        bad = set()
        for index, block, sequence in step.filled:
            if sequence in sequences:
                bad.add(block)
                if block.pending_step == step.step_id:
                    self.groups[index].cache.forget(block)
        return bad

    def _copy_on_write(self, index: int, sequence: Sequence, place: int, step: PlannedStep) -> None:
        """Replace a shared block of the sequence's table by a copy of its own."""
        group, table = self.groups[index], sequence.block_tables[index]
        (copy,) = group.take(1)
        # The sequence's reference becomes the pin.
        group.pinned.append(table[place])
        step.groups[index].copies.append((sequence.row, table[place], copy))
        table[place] = copy

    def _cached_prefix(self, sequence: Sequence, step: PlannedStep) -> list[list[Block]]:
        """Return for each group the cached blocks the sequence begins with, equally many."""
        num_wanted = (sequence.num_tokens - 1) // self._block_size
        # Log-probabilities of a prompt come with computing it.
        if not self._is_caching or sequence.request.misses_prompt_logprobs:
            return [[] for _ in self.groups]
        self._extend_hashes(sequence, num_wanted)
        prefixes = [
            group.cache.longest_prefix(islice(sequence.block_hashes, num_wanted), step.step_id)
            for group in self.groups
        ]
        num_hits = min(map(len, prefixes))
        return [prefix[:num_hits] for prefix in prefixes]

    def _extend_hashes(self, sequence: Sequence, num_blocks: int) -> None:
        known, size = sequence.block_hashes, self._block_size
        parent = known[-1] if known else sequence.request.root_hash
        while len(known) < num_blocks:
            start = len(known) * size
            parent = block_hash(parent, sequence.token_ids(start, start + size).tobytes())
            known.append(parent)
