"""The text of a gateway's calls over one stream, through real sockets."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from octavo.router import relay
from octavo.router.relay import Relays
from octavo.router.relay_service import RelayServicer
from octavo.router.tokenizer import Tokenizer
from octavo.v1 import relay_pb2, relay_pb2_grpc, scheduling_pb2
from octavo.v1.common_pb2 import FINISH_REASON_LENGTH
from tests.router.conftest import Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import encode, generate


class Attachment:
    """What a gateway has: a stream, and calls that name it."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.stream = relay_pb2_grpc.RelayStub(router.channel).Attach()
        self.id = b""

    async def read(self) -> relay_pb2.RelayAttachResponse:
        message: relay_pb2.RelayAttachResponse = await self.stream.read()
        return message

    async def read_text(self) -> list[tuple[int, int, int, str]]:
        """Return the next message as rows of (call, output, number of tokens, text)."""
        message = await self.read()
        columns = message.call_ids, message.output_indices, message.num_tokens, message.texts
        return list(zip(*columns, strict=True))

    async def control(self, **call_ids: list[int]) -> None:
        await self.stream.write(relay_pb2.RelayAttachRequest(**call_ids))

    def generate(self, call_id: int, **options: Any) -> Any:
        metadata = (("x-relay-bin", self.id + call_id.to_bytes(8)),)
        return self._router.inference.Generate(generate(**options), metadata=metadata)


@pytest.fixture
async def attachment(router: Router) -> AsyncIterator[Attachment]:
    async with asyncio.timeout(60):
        attachment = Attachment(router)
        attachment.id = (await attachment.read()).relay_id
        yield attachment


async def started(call: Any, scheduler: FakeScheduler) -> scheduling_pb2.SubmitRequest:
    """Return what the call submitted, once its text is relayed."""
    assert (await call.read()).started.is_relayed
    return await scheduler.submitted.get()


async def test_a_step_is_one_message_and_the_rest_is_the_calls_own(
    attachment: Attachment, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    calls = [attachment.generate(call_id) for call_id in (7, 8)]
    requests = [await started(call, scheduler) for call in calls]
    hello, mat = encode(tokenizer, "hello"), encode(tokenizer, " mat")
    scheduler.send(
        scheduling_pb2.StepOutputs(
            request_key=[request.request_key for request in requests],
            output_index=[0, 0],
            first_position=[0, 0],
            num_tokens=[len(hello), len(mat)],
            token_ids=[*hello, *mat],
        )
    )
    assert await attachment.read_text() == [
        (7, 0, len(hello), "hello"),
        (8, 0, len(mat), " mat"),
    ]
    scheduler.send_finished(requests[1], num_output_tokens=len(mat))
    (end,) = (await attachment.read()).finished
    assert (end.call_id, end.finished.reason) == (8, FINISH_REASON_LENGTH)
    assert (await calls[1].read()).usage.num_output_tokens == len(mat)
    assert await calls[1].read() is grpc.aio.EOF
    calls[0].cancel()


async def test_what_is_too_much_for_one_message_leaves_in_several(
    attachment: Attachment,
    scheduler: FakeScheduler,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "_MAX_MESSAGE_CHARS", 8)
    calls = [attachment.generate(call_id) for call_id in range(4)]
    requests = [await started(call, scheduler) for call in calls]
    hello = encode(tokenizer, "hello")
    scheduler.send(
        scheduling_pb2.StepOutputs(
            request_key=[request.request_key for request in requests],
            output_index=[0] * 4,
            first_position=[0] * 4,
            num_tokens=[len(hello)] * 4,
            token_ids=hello * 4,
        )
    )
    messages = [await attachment.read_text() for _ in range(2)]
    assert [[call_id for call_id, *_ in rows] for rows in messages] == [[0, 1], [2, 3]]
    assert {text for rows in messages for *_, text in rows} == {"hello"}
    for call in calls:
        call.cancel()


async def test_outputs_of_one_call_are_told_apart(
    attachment: Attachment, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = attachment.generate(1, n=2)
    request = await started(call, scheduler)
    hello = encode(tokenizer, "hello")
    scheduler.send_tokens(request, hello, output_index=1)
    assert await attachment.read_text() == [(1, 1, len(hello), "hello")]
    call.cancel()


async def test_what_is_more_than_text_is_not_relayed(
    attachment: Attachment, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = attachment.generate(1, return_token_ids=True)
    assert not (await call.read()).started.is_relayed
    hello = encode(tokenizer, "hello")
    scheduler.send_tokens(await scheduler.submitted.get(), hello)
    assert (await call.read()).delta.token_ids == hello
    call.cancel()


@pytest.mark.parametrize("key", [b"", b"of another router, and 24", b"short"])
async def test_a_key_that_is_none_of_ours_asks_for_nothing(
    router: Router, scheduler: FakeScheduler, key: bytes
) -> None:
    call = router.inference.Generate(generate(), metadata=(("x-relay-bin", key),))
    assert not (await call.read()).started.is_relayed
    call.cancel()


async def test_a_number_that_is_taken_asks_for_nothing(
    attachment: Attachment, scheduler: FakeScheduler
) -> None:
    call = attachment.generate(1)
    await started(call, scheduler)
    again = attachment.generate(1)
    assert not (await again.read()).started.is_relayed
    again.cancel()
    call.cancel()


async def test_text_of_a_paused_call_waits_until_it_is_resumed(
    attachment: Attachment, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    calls = [attachment.generate(call_id) for call_id in (1, 2)]
    slow, quick = [await started(call, scheduler) for call in calls]
    hello = encode(tokenizer, "hello")
    # The pause and the tokens come from two processes: it takes hold within a few steps.
    await attachment.control(paused_call_ids=[1, 99])
    position = 0
    while True:
        for request in (slow, quick):
            scheduler.send_tokens(request, hello, position=position)
        position += len(hello)
        rows = await attachment.read_text()
        while 2 not in [call_id for call_id, *_ in rows]:
            rows += await attachment.read_text()
        if 1 not in [call_id for call_id, *_ in rows]:
            break
    await attachment.control(resumed_call_ids=[1])
    assert await attachment.read_text() == [(1, 0, len(hello), "hello")]
    for call in calls:
        call.cancel()


async def test_an_attachment_ends_with_the_router_behind_the_last_text(
    attachment: Attachment, router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = attachment.generate(1)
    request = await started(call, scheduler)
    os.kill(os.getpid(), signal.SIGTERM)
    await router.becomes_not_serving()
    hello = encode(tokenizer, "hello")
    scheduler.send_tokens(request, hello)
    assert await attachment.read_text() == [(1, 0, len(hello), "hello")]
    scheduler.send_finished(request, num_output_tokens=len(hello))
    assert (await attachment.read()).finished
    assert (await call.read()).HasField("usage")
    # It is not cut off when the router's patience ends.
    assert await attachment.stream.read() is grpc.aio.EOF
    assert await attachment.stream.code() == grpc.StatusCode.OK
    await router.process


async def test_an_attachment_that_cannot_be_written_to_ends() -> None:
    async def requests() -> AsyncIterator[relay_pb2.RelayAttachRequest]:
        await asyncio.Event().wait()
        yield relay_pb2.RelayAttachRequest()

    class Context:
        async def write(self, message: relay_pb2.RelayAttachResponse) -> None:
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await RelayServicer(Relays()).Attach(requests(), Context())


async def test_text_of_a_gateway_that_left_goes_to_the_calls_own_stream(
    attachment: Attachment, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = attachment.generate(1)
    request = await started(call, scheduler)
    hello = encode(tokenizer, "hello")
    await attachment.control(paused_call_ids=[1])
    await attachment.stream.done_writing()
    while await attachment.stream.read() is not grpc.aio.EOF:
        pass
    scheduler.send_tokens(request, hello)
    assert (await call.read()).delta.text == "hello"
    call.cancel()
