"""The free queue, against a plain list; and what a released block is worth."""

from hypothesis import given
from hypothesis import strategies as st

from octavo.block_hash import BlockHash
from octavo.scheduler.block_pool import Block, BlockPool, FreeBlockQueue


@given(st.lists(st.tuples(st.sampled_from(["front", "back", "pop", "remove"]), st.integers(0, 9))))
def test_queue_behaves_as_a_list(operations: list[tuple[str, int]]) -> None:
    queue, model = FreeBlockQueue(), list[Block]()
    blocks = [Block(block_id) for block_id in range(10)]
    for operation, index in operations:
        block = blocks[index]
        match operation:
            case "front" if block not in model:
                queue.push_front(block)
                model.insert(0, block)
            case "back" if block not in model:
                queue.push_back(block)
                model.append(block)
            case "pop" if model:
                assert queue.pop_front() is model.pop(0)
            case "remove" if block in model:
                queue.remove(block)
                model.remove(block)
        assert list(queue) == model
        assert len(queue) == len(model)


def test_block_is_free_only_when_its_last_holder_lets_go() -> None:
    pool = BlockPool(1)
    block = pool.take()
    pool.hold(block)
    pool.release(block)
    assert pool.num_free == 0
    pool.release(block)
    assert pool.num_free == 1


def test_cached_blocks_are_handed_out_last_and_oldest_first() -> None:
    pool = BlockPool(4)
    first, second, plain, _ = (pool.take() for _ in range(4))
    first.block_hash, second.block_hash = BlockHash(b"1"), BlockHash(b"2")
    for block in (first, second, plain):
        pool.release(block)
    assert [pool.take() for _ in range(3)] == [plain, first, second]


def test_touched_block_is_the_last_to_go() -> None:
    pool = BlockPool(2)
    older, newer = pool.take(), pool.take()
    older.block_hash, newer.block_hash = BlockHash(b"1"), BlockHash(b"2")
    pool.release(older)
    pool.release(newer)
    pool.touch(older)
    assert [pool.take(), pool.take()] == [newer, older]
