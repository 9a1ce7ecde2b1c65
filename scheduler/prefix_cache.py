"""Prefix cache of one KV group: block hash → the block that holds that prefix's last tokens.

A block is *pending* from the plan that fills it until that plan's result is good, then *sealed*.
Later plans may hit it while it is pending, because they run after; the workers are told of sealed
blocks only. Lookups walk the chain from its root, so a hit is complete even where a block in the
middle was evicted before those after it.
"""

from collections.abc import Iterable
from itertools import islice

from octavo.block_hash import BlockHash

from .block_pool import Block

SHORT_HASH_BYTES = 4
"""Enough for a guess at where a prefix is: about one block in a million is taken for another."""

MAX_DIGEST_BLOCKS = 4096


class PrefixCache:
    """Only full blocks are in it; a hash names at most one block."""

    def __init__(self) -> None:
        # The block used last is the last one.
        self._blocks: dict[BlockHash, Block] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def get(self, block_hash: BlockHash) -> Block | None:
        return self._blocks.get(block_hash)

    def longest_prefix(self, chain: Iterable[BlockHash], step_id: int) -> list[Block]:
        """Return the blocks that hold the chain's beginning, for a row first planned in `step_id`.

        What the same step fills is no hit: its rows are computed side by side.
        """
        prefix = []
        for block_hash in chain:
            block = self._blocks.get(block_hash)
            if block is None or block.pending_step == step_id:
                break
            prefix.append(block)
        return prefix

    def add(self, block: Block, block_hash: BlockHash, pending_step: int) -> bool:
        """Register a full block; False if its content is cached already, in another block."""
        if block_hash in self._blocks:
            return False
        self._blocks[block_hash] = block
        block.block_hash = block_hash
        block.pending_step = pending_step
        return True

    def touch(self, block: Block) -> None:
        """Count a cached block as used just now."""
        if block.block_hash is not None:
            self._blocks[block.block_hash] = self._blocks.pop(block.block_hash)

    def digest(self) -> bytes:
        """Return short hashes of the blocks used last, the latest first."""
        latest = islice(reversed(self._blocks), MAX_DIGEST_BLOCKS)
        return b"".join([block_hash[:SHORT_HASH_BYTES] for block_hash in latest])

    def forget(self, block: Block) -> None:
        """Un-hash a block that is handed out anew, or whose content cannot be trusted."""
        if block.block_hash is not None:
            del self._blocks[block.block_hash]
            block.block_hash = None
            block.pending_step = 0
