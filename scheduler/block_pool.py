"""The blocks of one KV group: reference counts, and a queue of the free ones.

A free block may still hold a cached prefix; it keeps it until the block is handed out again. The
queue is doubly linked through the blocks themselves, so that a block found in the prefix cache is
taken out of its middle in O(1). All blocks are made at the start.

Idea of the queue: vLLM's FreeKVCacheBlockQueue
(https://github.com/vllm-project/vllm/blob/main/vllm/v1/core/kv_cache_utils.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from octavo.block_hash import BlockHash


@dataclass(slots=True, eq=False)
class Block:
    """A run of KV slots on every layer of the group."""

    block_id: int
    ref_count: int = 0
    """Block tables that hold the block, plus pins."""
    block_hash: BlockHash | None = None
    """Name of its content in the prefix cache; None: not cached."""
    pending_step: int = 0
    """The step that fills it, until that step's result is good; 0: the content is final."""
    previous: "Block" = field(init=False, repr=False)
    next: "Block" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.unlink()

    def unlink(self) -> None:
        """Make the block its own neighbour: it is in no queue."""
        self.previous = self.next = self


class FreeBlockQueue:
    """Free blocks; the next one to be handed out is at the front."""

    def __init__(self) -> None:
        # The ring closes over this one, so that no operation has a special case at the ends.
        self._end = Block(-1)
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Block]:
        block = self._end.next
        while block is not self._end:
            yield block
            block = block.next

    def push_front(self, block: Block) -> None:
        self._insert(block, self._end)

    def push_back(self, block: Block) -> None:
        self._insert(block, self._end.previous)

    def pop_front(self) -> Block:
        """Raises IndexError if the queue is empty."""
        end = self._end
        block = end.next
        if block is end:
            raise IndexError("no block is free")
        end.next = block.next
        block.next.previous = end
        block.previous = block.next = block
        self.size -= 1
        return block

    def remove(self, block: Block) -> None:
        block.previous.next = block.next
        block.next.previous = block.previous
        block.unlink()
        self.size -= 1

    def _insert(self, block: Block, left: Block) -> None:
        block.previous, block.next = left, left.next
        left.next.previous = block
        left.next = block
        self.size += 1


class BlockPool:
    """All blocks of a group. free + referenced = all; a cached block without references is free."""

    def __init__(self, num_blocks: int) -> None:
        self.blocks = [Block(block_id) for block_id in range(num_blocks)]
        self.free_queue = FreeBlockQueue()
        for block in self.blocks:
            self.free_queue.push_back(block)

    @property
    def num_free(self) -> int:
        return self.free_queue.size

    def take(self) -> Block:
        """Hand out the block that is worth least. The caller un-hashes what it still holds."""
        block = self.free_queue.pop_front()
        block.ref_count = 1
        return block

    def hold(self, block: Block) -> None:
        """Add a reference, for one more table or as a pin."""
        if block.ref_count == 0:
            self.free_queue.remove(block)
        block.ref_count += 1

    def release(self, block: Block) -> None:
        """Drop a reference. The last one frees the block: cached last in line, otherwise first."""
        block.ref_count -= 1
        if block.ref_count == 0:
            if block.block_hash is None:
                self.free_queue.push_front(block)
            else:
                self.free_queue.push_back(block)

    def touch(self, block: Block) -> None:
        """Count a cached block as just used, if it is free."""
        if block.ref_count == 0:
            self.free_queue.remove(block)
            self.free_queue.push_back(block)
