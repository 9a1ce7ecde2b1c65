"""What routers are told: each its own tokens, in order, whatever else is told beside them."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.outputs import Outputs
from octavo.scheduler.request import Sequence
from octavo.scheduler.submission import build_request
from octavo.v1 import common_pb2, scheduling_pb2

LIMITS = SchedulerConfig(
    epoch=1,
    block_size=4,
    kv_groups=(GroupConfig(num_blocks=8),),
    max_model_len=64,
    max_num_seqs=8,
    max_num_batched_tokens=64,
    model_hash=b"model",
    vocab_size=8,
)


def sequence_of(router_id: bytes, key: bytes) -> Sequence:
    submit = scheduling_pb2.SubmitRequest(
        request_key=key, router_id=router_id, prompt_token_ids=[1], n=1, seeds=[0], max_tokens=8
    )
    return build_request(submit, LIMITS, arrival=1, now_ns=0).sequences[0]


def tokens_of(message: scheduling_pb2.StepOutputs) -> Iterator[tuple[bytes, int, int]]:
    """Yield (request key, position, token id) of each token."""
    token_ids = iter(message.token_ids)
    runs = zip(message.request_key, message.first_position, message.num_tokens, strict=True)
    for key, first_position, num_tokens in runs:
        for position in range(first_position, first_position + num_tokens):
            yield key, position, next(token_ids)
    assert next(token_ids, None) is None


def key_of(token: tuple[bytes, int, int]) -> bytes:
    return token[0]


SEQUENCES = [sequence_of(b"r%d" % (index % 3), bytes([index]) * 16) for index in range(7)]
batches = st.lists(st.sampled_from([SEQUENCES, SEQUENCES[::3], SEQUENCES[:1], []]), max_size=6)


@given(batches, st.sets(st.integers(0, 5)), st.booleans())
def test_each_router_is_told_its_own_tokens(
    steps: list[list[Sequence]], taken_after: set[int], has_one_router: bool
) -> None:
    outputs = Outputs()
    expected: dict[bytes, list[tuple[bytes, int, int]]] = {}
    told: dict[bytes, list[tuple[bytes, int, int]]] = {}
    lengths = dict.fromkeys(SEQUENCES, 0)
    for step, some in enumerate([*steps, []]):
        sequences = [s for s in some if s.request.router_id == b"r0"] if has_one_router else some
        for sequence in sequences:
            outputs.add_router(sequence.request.router_id)
        # Steps in a row have the same list.
        for repetition in range(2):
            positions = [lengths[sequence] for sequence in sequences]
            token_ids = list(range(10 * step + repetition, 10 * step + repetition + len(sequences)))
            outputs.add_tokens(sequences, positions, token_ids)
            for sequence, position, token_id in zip(sequences, positions, token_ids, strict=True):
                news = expected.setdefault(sequence.request.router_id, [])
                news.append((sequence.request.key, position, token_id))
                lengths[sequence] += 1
        if step in taken_after or step == len(steps):
            for router_id, message in outputs.take().items():
                assert set(message.output_index) == {0}
                told.setdefault(router_id, []).extend(tokens_of(message))
    # Each output's in order; those of several steps may come output by output.
    for router_id in expected:
        # A stable sort: it would show tokens of one output that are out of order.
        assert sorted(told[router_id], key=key_of) == sorted(expected[router_id], key=key_of)
    assert told.keys() == expected.keys()
    assert not outputs.take()


def test_an_end_is_told_beside_tokens_and_alone() -> None:
    outputs = Outputs()
    outputs.add_router(b"r0")
    outputs.add_finished(b"r0", scheduling_pb2.OutputFinished(request_key=b"a"))
    outputs.add_tokens(SEQUENCES[:1], [4], [2])
    (message,) = outputs.take().values()
    assert [finished.request_key for finished in message.finished] == [b"a"]
    assert list(message.token_ids) == [2]
    outputs.add_finished(b"r0", scheduling_pb2.OutputFinished(request_key=b"b"))
    (message,) = outputs.take().values()
    assert [finished.request_key for finished in message.finished] == [b"b"]
    assert not message.token_ids


def test_tokens_with_log_probabilities_are_told_in_the_order_of_these() -> None:
    outputs = Outputs()
    outputs.add_router(b"r0")
    outputs.add_router(SEQUENCES[3].request.router_id)
    for step in range(2):
        for rank in range(2):
            outputs.add_logprobs(
                b"r0",
                common_pb2.PositionLogprobs(chosen=common_pb2.TokenLogprob(rank=2 * step + rank)),
            )
        outputs.add_tokens([SEQUENCES[0], SEQUENCES[3]], [step, step], [2 * step, 2 * step + 1])
    (message,) = outputs.take().values()
    assert [each.chosen.rank for each in message.logprobs] == [0, 1, 2, 3]
    assert [token_id for _, _, token_id in tokens_of(message)] == [0, 1, 2, 3]
