"""What a router makes of an engine's words about its load, and of what it sent there since."""

from octavo.block_hash import extend_chain, root_hash
from octavo.router.engine_load import EngineLoad, short_hashes
from octavo.v1 import scheduling_pb2

CHAIN = extend_chain(root_hash(b"weights", ""), range(16), 4)
HASHES = short_hashes(b"".join(CHAIN))


def submit(key: bytes, *, n: int = 1, num_blocks: int = 0) -> scheduling_pb2.SubmitRequest:
    return scheduling_pb2.SubmitRequest(
        request_key=key, n=n, block_hashes=b"".join(CHAIN[:num_blocks])
    )


def digest(*block_hashes: bytes) -> scheduling_pb2.Load:
    return scheduling_pb2.Load(cached_prefixes=b"".join(each[:4] for each in block_hashes))


def test_outputs_sent_since_the_last_word_count_until_they_end_or_are_told() -> None:
    load = EngineLoad()
    load.update(scheduling_pb2.Load(num_waiting=2, num_running=3, num_blocks=10))
    load.add(submit(b"a", n=4))
    load.add(submit(b"b"))
    assert load.num_outputs == 2 + 3 + 4 + 1
    load.remove(b"a")
    assert load.num_outputs == 2 + 3 + 1
    assert load.num_outputs_per_block == 0.6
    load.update(scheduling_pb2.Load(num_running=6, num_blocks=10))
    assert load.num_outputs == 6
    load.remove(b"b")
    assert load.num_outputs == 6


def test_a_prompt_is_cached_up_to_its_last_block_that_is_told() -> None:
    load = EngineLoad()
    assert load.num_cached_blocks(HASHES) == 0
    load.update(digest(CHAIN[2], b"other"))
    assert load.num_cached_blocks(HASHES) == 3
    assert load.num_cached_blocks(HASHES[:2]) == 0
    assert load.num_cached_blocks([]) == 0


def test_a_digest_replaces_the_one_before_and_no_digest_does_not() -> None:
    load = EngineLoad()
    load.update(digest(CHAIN[3]))
    load.update(scheduling_pb2.Load(num_running=1))
    assert load.num_cached_blocks(HASHES) == 4
    load.update(digest())
    assert load.num_cached_blocks(HASHES) == 0


def test_what_was_sent_counts_as_cached_for_a_while() -> None:
    now_s = 100.0
    load = EngineLoad(lambda: now_s)
    load.add(submit(b"a", num_blocks=2))
    load.update(digest())
    assert load.num_cached_blocks(HASHES) == 2
    for num_cached_blocks in (2, 0):
        now_s += 2.5
        load.add(submit(b"b"))
        assert load.num_cached_blocks(HASHES) == num_cached_blocks
