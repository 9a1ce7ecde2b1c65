"""What is true of the scheduler's state between any two events.

Checked by the loop when it is idle, and by the tests after every event.
"""

from collections import Counter

from .block_pool import Block
from .kv_cache import KVGroup
from .request import Sequence, SequenceStatus
from .state import SchedulerState


def check_state(state: SchedulerState) -> None:
    """Raise AssertionError with a sentence that names what is wrong."""
    running = state.running.snapshot()
    _check_queues(state, running)
    for sequence in running:
        _check_running(state, sequence)
    for index, group in enumerate(state.kv_cache.groups):
        _check_pool(group, [sequence.block_tables[index] for sequence in running])
        _check_cache(group, [step.step_id for step in state.in_flight])
    if not state.requests:
        _check_quiescent(state)


def _check_queues(state: SchedulerState, running: list[Sequence]) -> None:
    """Every unfinished sequence is in one queue, and the bounds hold."""
    unfinished = [
        sequence
        for request in state.requests.all()
        for sequence in request.sequences
        if sequence.status is not SequenceStatus.FINISHED
    ]
    waiting = state.waiting.snapshot()
    assert sorted(s.order for s in unfinished) == sorted(s.order for s in running + waiting), (
        "the queues do not hold the unfinished sequences, each once"
    )
    for queue, status in ((running, SequenceStatus.RUNNING), (waiting, SequenceStatus.WAITING)):
        assert all(sequence.status is status for sequence in queue), f"not all {status.value}"
        orders = [sequence.order for sequence in queue]
        assert orders == sorted(orders), f"the {status.value} sequences are out of order"
    landed = [sequence for sequence in running if not sequence.due_step_id]
    assert landed == state.running.landed(), "who coasts is not told from who does not"
    assert len(landed) + state.running.num_coasting == len(running), "who coasts is miscounted"
    assert len(running) <= state.config.max_num_seqs, "more sequences run than there are rows"
    rows = [sequence.row for sequence in running]
    assert len(set(rows)) == len(rows), "two sequences have the same row"
    queued = [request for request in state.requests.all() if request.started_ns is None]
    assert len(queued) == state.requests.num_queued_requests, "queued requests are miscounted"
    assert sum(r.num_prompt_tokens for r in queued) == state.requests.num_queued_tokens, (
        "queued tokens are miscounted"
    )
    for sequence in waiting:
        assert not sequence.block_tables, f"waiting sequence {sequence.order} holds blocks"


def _check_running(state: SchedulerState, sequence: Sequence) -> None:
    """The sequence's lengths fit together, and its tables cover what is planned."""
    name = f"sequence {sequence.order}"
    num_to_come = sequence.num_expected_tokens - sequence.num_tokens
    assert 0 <= num_to_come <= len(state.in_flight), f"{name} expects {num_to_come} tokens"
    assert sequence.num_computed_tokens < sequence.num_expected_tokens, (
        f"{name} has computed a token that is not expected"
    )
    block_size = state.config.block_size
    least = -(-sequence.num_computed_tokens // block_size)
    # The blocks of known tokens are had at admission, that of a sampled one when it is planned.
    most = -(-max(sequence.num_computed_tokens, sequence.num_tokens) // block_size)
    for table in sequence.block_tables:
        assert least <= len(table) <= most, (
            f"{name} has {len(table)} blocks for {sequence.num_computed_tokens} tokens"
        )
        assert len(set(table)) == len(table), f"{name} has the same block twice"
        assert sequence.num_writable_tokens <= len(table) * block_size, f"{name} lacks blocks"
        to_write = slice(
            sequence.num_computed_tokens // block_size,
            -(-sequence.num_writable_tokens // block_size),
        )
        if sequence.num_writable_tokens > sequence.num_computed_tokens:
            assert all(block.ref_count == 1 for block in table[to_write]), (
                f"{name} would write into a shared block"
            )
    if sequence.due_step_id:
        num_steps = sequence.due_step_id - 1 - sequence.last_step_id
        until = sequence.num_computed_tokens + num_steps
        leave = min(sequence.num_writable_tokens, sequence.token_limit - 1)
        assert num_steps >= 0 and until <= leave, f"{name} would go on to {until} without leave"


def _check_pool(group: KVGroup, tables: list[list[Block]]) -> None:
    """free + referenced = all, and every reference is a table's."""
    held = Counter(block for table in tables for block in table)
    assert not group.pinned, "blocks are pinned between steps"
    free = list(group.pool.free_queue)
    assert len(free) == group.pool.num_free, "the free queue is miscounted"
    assert len(free) + len(held) == len(group.pool.blocks), (
        f"{len(free)} blocks free + {len(held)} held, of {len(group.pool.blocks)}"
    )
    for block in group.pool.blocks:
        assert block.ref_count == held[block], (
            f"block {block.block_id} has {block.ref_count} references, {held[block]} tables hold it"
        )
    assert all(block.ref_count == 0 for block in free), "a block is free and held"


def _check_cache(group: KVGroup, in_flight: list[int]) -> None:
    """A hash names one block and a block has one hash; what is pending waits for a result."""
    hashed = [block for block in group.pool.blocks if block.block_hash is not None]
    assert len(hashed) == len(group.cache), "the prefix cache names blocks without a hash"
    for block in hashed:
        assert block.block_hash is not None and group.cache.get(block.block_hash) is block, (
            f"the hash of block {block.block_id} names another block"
        )
        assert block.pending_step in (0, *in_flight), (
            f"block {block.block_id} waits for step {block.pending_step}, which is not in flight"
        )


def _check_quiescent(state: SchedulerState) -> None:
    """Nothing is left of requests that have ended."""
    assert not len(state.running) and not len(state.waiting), "sequences outlive their requests"
    assert state.requests.num_queued_requests == 0, "requests are queued that have ended"
    for group in state.kv_cache.groups:
        assert group.pool.num_free == len(group.pool.blocks), "blocks are held by no request"
