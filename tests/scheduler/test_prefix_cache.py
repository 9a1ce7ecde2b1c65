"""Which prefixes are found, and by whom."""

from octavo.block_hash import BlockHash
from octavo.scheduler.block_pool import Block
from octavo.scheduler.prefix_cache import MAX_DIGEST_BLOCKS, PrefixCache

CHAIN = [BlockHash(bytes([i])) for i in range(4)]


def filled(num_blocks: int, pending_step: int = 0) -> tuple[PrefixCache, list[Block]]:
    cache, blocks = PrefixCache(), [Block(i) for i in range(num_blocks)]
    for block, block_hash in zip(blocks, CHAIN[:num_blocks], strict=True):
        assert cache.add(block, block_hash, pending_step)
    return cache, blocks


def test_prefix_ends_at_the_first_block_that_is_missing() -> None:
    cache, blocks = filled(4)
    cache.forget(blocks[2])
    assert cache.longest_prefix(CHAIN, step_id=9) == blocks[:2]


def test_pending_block_is_found_by_later_steps_only() -> None:
    cache, blocks = filled(2, pending_step=5)
    assert cache.longest_prefix(CHAIN, step_id=5) == []
    assert cache.longest_prefix(CHAIN, step_id=6) == blocks


def test_second_block_with_the_same_content_is_not_registered() -> None:
    cache, blocks = filled(1)
    twin = Block(7)
    assert not cache.add(twin, CHAIN[0], 0)
    assert twin.block_hash is None
    assert cache.get(CHAIN[0]) is blocks[0]


def test_forgotten_block_can_be_registered_again() -> None:
    cache, (block,) = filled(1, pending_step=5)
    cache.forget(block)
    assert (block.block_hash, block.pending_step, len(cache)) == (None, 0, 0)
    assert cache.add(block, CHAIN[3], 0)


def test_the_digest_begins_with_the_block_used_last() -> None:
    cache, blocks = PrefixCache(), [Block(i) for i in range(3)]
    for block, name in zip(blocks, (b"aaaa", b"bbbb", b"cccc"), strict=True):
        cache.add(block, BlockHash(name + b"the rest"), 0)
    assert cache.digest() == b"ccccbbbbaaaa"
    cache.touch(blocks[0])
    assert cache.digest() == b"aaaaccccbbbb"
    cache.forget(blocks[2])
    cache.touch(blocks[2])
    assert cache.digest() == b"aaaabbbb"


def test_the_digest_leaves_out_what_was_not_used_for_longest() -> None:
    cache = PrefixCache()
    for number in range(MAX_DIGEST_BLOCKS + 1):
        cache.add(Block(number), BlockHash(number.to_bytes(16, "big")[::-1]), 0)
    digest = cache.digest()
    assert len(digest) == 4 * MAX_DIGEST_BLOCKS
    assert digest.startswith(MAX_DIGEST_BLOCKS.to_bytes(4, "little"))
    assert digest.endswith((1).to_bytes(4, "little"))
