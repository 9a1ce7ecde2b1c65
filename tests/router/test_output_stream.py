"""One client's stream: exactly once, coalesced, bounded."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import InternalError
from octavo.router.output_stream import (
    MAX_BUFFERED_BYTES,
    PAUSE_BUFFERED_BYTES,
    WINDOW_TOKENS,
    OutputStream,
    SlowReader,
)
from octavo.router.output_text import OutputText
from octavo.router.stop_strings import StopStringAutomaton, StopStringMatcher
from octavo.router.tokenizer import Tokenizer
from octavo.v1 import common_pb2, inference_pb2, scheduling_pb2
from octavo.v1.common_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP
from tests.router.tiny_tokenizers import byte_level_tokenizer

tokenizer = Tokenizer(byte_level_tokenizer())
KEY = b"0123456789abcdef"


@dataclass
class Control:
    """Notes what the stream tells its scheduler."""

    aborts: list[tuple[scheduling_pb2.AbortReason, int | None, int | None]] = field(
        default_factory=list
    )
    windows: list[tuple[int, int]] = field(default_factory=list)

    def abort(
        self,
        request_key: bytes,
        reason: scheduling_pb2.AbortReason,
        *,
        output_index: int | None = None,
        final_token_count: int | None = None,
    ) -> None:
        assert request_key == KEY
        self.aborts.append((reason, output_index, final_token_count))

    def set_window(self, request_key: bytes, output_index: int, max_position: int) -> None:
        assert request_key == KEY
        self.windows.append((output_index, max_position))


def output_stream(
    control: Control, *stop_strings: str, n: int = 1, num_logprobs: int | None = None
) -> OutputStream:
    automaton = StopStringAutomaton(stop_strings) if stop_strings else None
    texts = [
        OutputText(
            tokenizer.detokenizer(),
            StopStringMatcher(automaton) if automaton else None,
            frozenset(),
        )
        for _ in range(n)
    ]
    request = scheduling_pb2.SubmitRequest(request_key=KEY, num_logprobs=num_logprobs)
    return OutputStream(request, texts, control, tokenizer=tokenizer, return_token_ids=True)


def finished(
    index: int = 0,
    reason: common_pb2.FinishReason = FINISH_REASON_LENGTH,
    usage: common_pb2.Usage | None = None,
    stop_token_id: int | None = None,
) -> scheduling_pb2.OutputFinished:
    return scheduling_pb2.OutputFinished(
        request_key=KEY,
        output_index=index,
        reason=reason,
        usage=usage,
        stop_token_id=stop_token_id,
    )


def encode(text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


async def collect(stream: OutputStream) -> list[inference_pb2.StreamEvent]:
    return [event async for event in stream.events()]


repeats = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=30)


@given(repeats)
async def test_repeated_tokens_are_taken_once(messages: list[tuple[int, int]]) -> None:
    """Messages are any stretch of the output that leaves no gap, as after a reconnection."""
    tokens = encode("the cat sat on the mat and the dog sat on the log, 日本語")
    stream = output_stream(Control())
    end = 0
    for start, length in messages:
        position = min(start, end)
        stream.receive(0, position, tokens[position : position + length])
        end = max(end, min(position + length, len(tokens)))
    stream.receive(0, end, tokens[end:])
    stream.finish(finished(usage=common_pb2.Usage(num_output_tokens=len(tokens))))
    events = await collect(stream)
    assert "".join(event.delta.text for event in events) == tokenizer.decode(tokens)
    assert [i for event in events for i in event.delta.token_ids] == tokens


async def test_all_that_arrived_is_one_delta_for_each_output() -> None:
    stream = output_stream(Control(), n=2)
    for position, token_id in enumerate(encode("hello")):
        stream.receive(0, position, [token_id])
    stream.receive(1, 0, encode("world"))
    stream.finish(finished(1))
    stream.finish(finished(0, usage=common_pb2.Usage()))
    events = await collect(stream)
    assert [event.WhichOneof("event") for event in events] == [
        "delta",
        "finished",
        "delta",
        "finished",
        "usage",
    ]
    assert [events[0].delta.text, events[2].delta.text] == ["hello", "world"]


async def test_text_that_was_held_back_comes_with_the_end() -> None:
    stream = output_stream(Control(), "the end")
    stream.receive(0, 0, encode("at the"))
    stream.finish(finished(usage=common_pb2.Usage()))
    events = await collect(stream)
    assert "".join(event.delta.text for event in events) == "at the"
    assert events[-2].finished.reason == FINISH_REASON_LENGTH


async def test_what_came_before_an_error_is_delivered_before_it() -> None:
    stream = output_stream(Control())
    stream.receive(0, 0, encode("hello"))
    stream.fail(InternalError("broken"))
    texts = []
    with pytest.raises(InternalError, match="broken"):
        async for event in stream.events():
            texts.append(event.delta.text)
    assert texts == ["hello"]


async def test_a_scheduler_that_is_lost_after_its_last_word_takes_nothing_back() -> None:
    stream = output_stream(Control())
    stream.receive(0, 0, encode("all"))
    stream.finish(finished(usage=common_pb2.Usage(num_output_tokens=3)))
    # Before anybody came to read: the last words of one that drains are followed by its end.
    stream.fail(InternalError("gone"))
    kinds = [event.WhichOneof("event") for event in await collect(stream)]
    assert kinds == ["delta", "finished", "usage"]


async def test_tokens_after_a_stop_string_do_not_count() -> None:
    control = Control()
    stream = output_stream(control, "cat")
    tokens = encode("the cat sat on the mat")
    stream.receive(0, 0, tokens)
    (abort,) = control.aborts
    kept = abort[2]
    assert kept is not None
    assert abort == (scheduling_pb2.ABORT_REASON_STOP_STRING, 0, kept)
    assert 0 < kept < len(tokens)
    stream.receive(0, len(tokens), encode(" and more"))
    usage = common_pb2.Usage(num_output_tokens=kept)
    stream.finish(finished(reason=FINISH_REASON_STOP, usage=usage))
    events = await collect(stream)
    assert "".join(event.delta.text for event in events) == "the "
    assert [i for event in events for i in event.delta.token_ids] == tokens[:kept]
    assert sum(event.delta.num_tokens for event in events) == kept
    assert events[-2].finished.stop_string == "cat"
    assert events[-1].usage.num_output_tokens == kept


@pytest.mark.parametrize(
    ("reason", "stop_token_id"), [(FINISH_REASON_LENGTH, None), (FINISH_REASON_STOP, 7)]
)
async def test_usage_is_right_when_an_output_ended_before_the_abort_arrived(
    reason: common_pb2.FinishReason, stop_token_id: int | None
) -> None:
    """The scheduler counted tokens that the client never gets."""
    control = Control()
    stream = output_stream(control, "cat")
    tokens = encode("the cat sat on the mat")
    stream.receive(0, 0, tokens)
    kept = control.aborts[0][2]
    usage = common_pb2.Usage(num_output_tokens=len(tokens))
    stream.finish(finished(reason=reason, stop_token_id=stop_token_id, usage=usage))
    events = await collect(stream)
    assert events[-2].finished.stop_string == "cat"
    assert events[-2].finished.reason == FINISH_REASON_STOP
    assert events[-1].usage.num_output_tokens == kept
    assert events[-1].usage.num_discarded_tokens == len(tokens) - (kept or 0)


async def test_a_stop_string_in_what_was_held_back_ends_the_output_too() -> None:
    # Half a character becomes U+FFFD only at the end.
    stream = output_stream(Control(), "\ufffd")
    stream.receive(0, 0, [*encode("a"), *encode("日")[:1]])
    stream.finish(finished(usage=common_pb2.Usage(num_output_tokens=2)))
    events = await collect(stream)
    assert "".join(event.delta.text for event in events) == "a"
    assert events[-2].finished.stop_string == "\ufffd"


async def test_a_client_that_stalls_pauses_its_request_until_it_reads_again() -> None:
    control = Control()
    stream = output_stream(control, n=2)
    (token_id,) = encode("a")
    num_tokens = PAUSE_BUFFERED_BYTES // 5
    stream.receive(0, 0, [token_id] * num_tokens)
    assert control.windows == []
    stream.receive(1, 0, [token_id] * 5)
    assert control.windows == [(0, num_tokens), (1, 5)]
    # What was in flight still arrives, and nothing more is said.
    stream.receive(1, 5, [token_id] * 5)
    assert len(control.windows) == 2
    events = stream.events()
    assert len((await anext(events)).delta.text) == num_tokens
    assert control.windows[2:] == [(0, num_tokens + WINDOW_TOKENS), (1, 10 + WINDOW_TOKENS)]
    assert len((await anext(events)).delta.text) == 10
    assert len(control.windows) == 4


async def test_windows_only_widen_and_never_close_on_a_client_that_reads() -> None:
    control = Control()
    stream = output_stream(control)
    (token_id,) = encode("a")
    position = PAUSE_BUFFERED_BYTES // 5 + 1
    stream.receive(0, 0, [token_id] * position)
    events = stream.events()
    await anext(events)
    while position < 10 * PAUSE_BUFFERED_BYTES // 5:
        stream.receive(0, position, [token_id] * 100)
        position += 100
        assert position <= control.windows[-1][1]
        await anext(events)
    widths = [max_position for _, max_position in control.windows]
    assert widths == sorted(set(widths))
    # Not one for every token.
    assert len(widths) < position / (WINDOW_TOKENS // 2) + 3


@pytest.mark.parametrize("n", [1, 16])
@pytest.mark.parametrize("num_logprobs", [None, 20])
async def test_a_client_that_stalls_again_and_again_is_not_given_up(
    num_logprobs: int | None, n: int
) -> None:
    control = Control()
    stream = output_stream(control, n=n, num_logprobs=num_logprobs)
    events = stream.events()
    (token_id,) = encode("a")
    positions = [0] * n
    for _ in range(5):
        before = positions.copy()
        while True:
            limits = dict(control.windows)
            # A scheduler that hears of a window has two more tokens under way.
            going_on = [i for i in range(n) if positions[i] < limits.get(i, math.inf) + 2]
            if not going_on:
                break
            for i in going_on:
                stream.receive(i, positions[i], [token_id])
                positions[i] += 1
        assert control.aborts == []
        for _ in range(n):
            await anext(events)
        assert min(now - then for now, then in zip(positions, before, strict=True)) > 5


async def test_a_buffer_that_runs_over_gives_the_client_up() -> None:
    control = Control()
    stream = output_stream(control)
    (token_id,) = encode("a")
    stream.receive(0, 0, [token_id] * (MAX_BUFFERED_BYTES // 5 + 1))
    assert control.aborts == [(scheduling_pb2.ABORT_REASON_SLOW_READER, None, None)]
    with pytest.raises(SlowReader, match="reads too slowly"):
        await collect(stream)


async def test_it_is_closed_when_the_scheduler_has_said_its_last_word() -> None:
    stream = output_stream(Control(), n=2)
    assert not stream.is_closed
    stream.finish(finished(0))
    stream.finish(finished(0))
    assert not stream.is_closed
    stream.finish(finished(1, usage=common_pb2.Usage()))
    assert stream.is_closed
    assert len([event for event in await collect(stream) if event.HasField("finished")]) == 2


async def test_the_end_comes_after_tokens_that_arrive_while_others_are_written() -> None:
    stream = output_stream(Control())
    token_ids = tokenizer.encode("one two three", add_special_tokens=False)
    stream.receive(0, 0, token_ids[:2])
    events = stream.events()
    received = [await anext(events)]
    stream.receive(0, 2, token_ids[2:])
    stream.finish(finished(usage=common_pb2.Usage()))
    received += [event async for event in events]
    assert [event.WhichOneof("event") for event in received] == [
        "delta",
        "delta",
        "finished",
        "usage",
    ]


def test_text_that_came_before_its_relay_is_told_to_it() -> None:
    stream = output_stream(Control())
    tokens = encode("hello")
    stream.receive(0, 0, tokens)
    stream.finish(finished())
    notices: list[None] = []
    stream.relay(lambda: notices.append(None))
    assert notices
    ((index, num_tokens, text, end),) = stream.take_text()
    assert (index, num_tokens, text) == (0, len(tokens), "hello")
    assert end is not None
