"""The text of all streams of one connection, as the router relays it: one message for each step."""

import asyncio
import contextlib
import itertools
from collections import deque
from typing import Any, NamedTuple

import grpc
import structlog

from octavo.errors import RequestError, Unavailable
from octavo.v1.inference_pb2 import Finished, StreamEvent
from octavo.v1.relay_pb2 import RelayAttachRequest, RelayAttachResponse
from octavo.v1.relay_pb2_grpc import RelayStub

_PAUSE_CHARS = 64 * 1024
"""The router keeps what comes after so much that one client has not read."""
_RESUME_CHARS = _PAUSE_CHARS // 2
_RETRY_AFTER_S = 1.0
_LOST = "The router cannot be reached; send the request again in a moment."

log = structlog.get_logger()


class RelayedText(NamedTuple):
    """New text of one output."""

    output_index: int
    num_tokens: int
    text: str


class RelayedCall:
    """What has come of one call, and has not been taken.

    Attributes:
        has_news: set when there is something to take, or the call has failed.
        num_finished: outputs whose end has come.
        error: why nothing more will come.
    """

    def __init__(self, relay: "Relay", call_id: int) -> None:
        self.has_news = asyncio.Event()
        self.num_finished = 0
        self.error: RequestError | None = None
        self._relay = relay
        self._call_id = call_id
        self._pending: deque[RelayedText | StreamEvent] = deque()
        self._num_chars = 0
        self._is_paused = False

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """What asks the router to relay the call; nothing while it is not attached."""
        relay_id = self._relay.id
        return (("x-relay-bin", relay_id + self._call_id.to_bytes(8)),) if relay_id else ()

    def take(self) -> RelayedText | StreamEvent | None:
        """Return what came first."""
        if not self._pending:
            return None
        event = self._pending.popleft()
        if isinstance(event, RelayedText):
            self._num_chars -= len(event.text)
            if self._is_paused and self._num_chars <= _RESUME_CHARS:
                self._is_paused = False
                self._relay.control(RelayAttachRequest(resumed_call_ids=[self._call_id]))
        return event

    def leave(self) -> None:
        """Want nothing more."""
        self._relay.remove(self._call_id)

    def add_text(self, new: RelayedText) -> None:
        """Take text in; it becomes one with what the client has not read of the same output."""
        last = self._pending[-1] if self._pending else None
        if isinstance(last, RelayedText) and last.output_index == new.output_index:
            self._pending[-1] = RelayedText(
                new.output_index, last.num_tokens + new.num_tokens, last.text + new.text
            )
        else:
            self._pending.append(new)
        self._num_chars += len(new.text)
        if self._num_chars > _PAUSE_CHARS and not self._is_paused:
            self._is_paused = True
            self._relay.control(RelayAttachRequest(paused_call_ids=[self._call_id]))
        self.has_news.set()

    def add_finish(self, finished: Finished) -> None:
        self._pending.append(StreamEvent(finished=finished))
        self.num_finished += 1
        self.has_news.set()

    def fail(self, error: RequestError) -> None:
        self.error = error
        self.has_news.set()


class Relay:
    """One attachment at the router; the first call asks for it, and the next after it broke.

    Nobody waits for it: until it is there, and at a router that has none, calls are not relayed.

    Attributes:
        id: what the router calls the attachment; empty: there is none.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.id = b""
        self._stub = RelayStub(channel)
        self._numbers = itertools.count()
        self._calls: dict[int, RelayedCall] = {}
        self._controls: asyncio.Queue[RelayAttachRequest] = asyncio.Queue()
        self._attachment: asyncio.Task[None] | None = None

    def join(self, metadata: tuple[tuple[str, str], ...]) -> RelayedCall:
        """Return a new call's place; an attachment is made with this metadata."""
        if self._attachment is None or self._attachment.done():
            self._attachment = asyncio.create_task(self._attach(metadata))
        call_id = next(self._numbers)
        call = self._calls[call_id] = RelayedCall(self, call_id)
        return call

    def remove(self, call_id: int) -> None:
        self._calls.pop(call_id, None)

    def control(self, request: RelayAttachRequest) -> None:
        self._controls.put_nowait(request)

    async def close(self) -> None:
        if self._attachment is not None:
            self._attachment.cancel()
            await asyncio.gather(self._attachment, return_exceptions=True)

    async def _attach(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._controls = asyncio.Queue()
        stream = self._stub.Attach(metadata=metadata)
        writer = asyncio.create_task(_write_all(self._controls, stream))
        try:
            while (message := await stream.read()) is not grpc.aio.EOF:
                self.id = self.id or message.relay_id
                self._hand_out(message)
        except grpc.aio.AioRpcError as error:
            # What it means, if anything, the calls say.
            log.debug("the router relays nothing", code=error.code().name)
        finally:
            self.id = b""
            for call in self._calls.values():
                call.fail(Unavailable(_LOST, retry_after_s=_RETRY_AFTER_S))
            # Nothing is awaited here: whoever hears of the loss finds this task done.
            writer.cancel()
            stream.cancel()

    def _hand_out(self, message: RelayAttachResponse) -> None:
        """Give each call its own; what is for a call that has left is dropped."""
        calls = self._calls
        texts = map(RelayedText, message.output_indices, message.num_tokens, message.texts)
        for call_id, text in zip(message.call_ids, texts, strict=True):
            if (call := calls.get(call_id)) is not None:
                call.add_text(text)
        for end in message.finished:
            if (call := calls.get(end.call_id)) is not None:
                call.add_finish(end.finished)


async def _write_all(controls: "asyncio.Queue[RelayAttachRequest]", stream: Any) -> None:
    # It fails where reading does: of the stream's end.
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await stream.write(await controls.get())
