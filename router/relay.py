"""The text of a gateway's calls over one stream: one wake-up and one message for each step."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from octavo.v1 import relay_pb2

from .event_writer import EventWriter
from .metrics import StreamMetrics
from .output_stream import OutputStream

_ID_BYTES = 16
_KEY_BYTES = _ID_BYTES + 8
_MAX_MESSAGE_CHARS = 1024 * 1024
"""A message that has so much takes no further call on. What has gathered while a gateway did not
read could be more than gRPC sends at once, and that would end the attachment."""


@dataclass(slots=True)
class RelayedCall:
    """A call that leaves its text to a relay."""

    stream: OutputStream
    client: EventWriter
    metrics: StreamMetrics
    is_paused: bool = False


class Relay:
    """One attachment of a gateway.

    Attributes:
        id: 16 bytes that only the gateway knows.
    """

    def __init__(self) -> None:
        self.id = secrets.token_bytes(_ID_BYTES)
        self._calls: dict[int, RelayedCall] = {}
        self._with_news: dict[int, RelayedCall] = {}
        self._has_news = asyncio.Event()
        self._is_ending = False

    @contextlib.contextmanager
    def joined(self, call_id: int, call: RelayedCall) -> Iterator[None]:
        """Take the call's text while the block runs."""
        self._calls[call_id] = call
        call.stream.relay(lambda: self._notice(call_id, call))
        try:
            yield
        finally:
            del self._calls[call_id]
            self._with_news.pop(call_id, None)
            self._has_news.set()

    def has(self, call_id: int) -> bool:
        return call_id in self._calls

    def control(self, request: relay_pb2.RelayAttachRequest) -> None:
        """Pause and resume calls; those that have ended meanwhile are passed over."""
        for call_id in request.paused_call_ids:
            if (call := self._calls.get(call_id)) is not None:
                call.is_paused = True
                call.client.set_reading(False)
        for call_id in request.resumed_call_ids:
            if (call := self._calls.get(call_id)) is not None:
                call.is_paused = False
                call.client.set_reading(True)
                self._notice(call_id, call)

    async def send_all(
        self, write: Callable[[relay_pb2.RelayAttachResponse], Awaitable[None]]
    ) -> None:
        """Send what comes, until `end`; during a write, text waits with its calls."""
        await write(relay_pb2.RelayAttachResponse(relay_id=self.id))
        while self._calls or not self._is_ending:
            await self._has_news.wait()
            self._has_news.clear()
            message = self._take()
            if message.call_ids or message.finished:
                await write(message)

    def end(self) -> None:
        """Let `send_all` return as soon as there are no calls."""
        self._is_ending = True
        self._has_news.set()

    def close(self) -> None:
        """Give the calls back what has not been taken."""
        for call in self._calls.values():
            call.stream.end_relay()

    def _notice(self, call_id: int, call: RelayedCall) -> None:
        self._with_news[call_id] = call
        self._has_news.set()

    def _take(self) -> relay_pb2.RelayAttachResponse:
        """Return what is pending, of all calls that are not paused, as far as it fits."""
        message = relay_pb2.RelayAttachResponse()
        calls, self._with_news = self._with_news, {}
        now_s, num_chars = time.monotonic(), 0
        call_ids, indices, counts, texts = [], [], [], []
        for call_id, call in calls.items():
            if call.is_paused:
                continue
            if num_chars >= _MAX_MESSAGE_CHARS:
                self._notice(call_id, call)
                continue
            for output_index, num_tokens, text, finish in call.stream.take_text():
                if num_tokens or text:
                    call_ids.append(call_id)
                    indices.append(output_index)
                    counts.append(num_tokens)
                    texts.append(text)
                    num_chars += len(text)
                if num_tokens:
                    call.metrics.observe_tokens(output_index, num_tokens, now_s)
                if finish is not None:
                    message.finished.add(call_id=call_id, finished=finish)
        message.call_ids.extend(call_ids)
        message.output_indices.extend(indices)
        message.num_tokens.extend(counts)
        message.texts.extend(texts)
        return message


class Relays:
    """The attachments there are."""

    def __init__(self) -> None:
        self._relays: dict[bytes, Relay] = {}
        self._is_ending = False

    def end(self) -> None:
        """Let every attachment end when it has no calls left, those to come included."""
        self._is_ending = True
        for relay in self._relays.values():
            relay.end()

    @contextlib.contextmanager
    def attached(self) -> Iterator[Relay]:
        """A new attachment, for the length of the block."""
        relay = Relay()
        self._relays[relay.id] = relay
        if self._is_ending:
            relay.end()
        try:
            yield relay
        finally:
            del self._relays[relay.id]
            relay.close()

    @contextlib.contextmanager
    def joined(self, key: bytes, call: RelayedCall) -> Iterator[bool]:
        """Let a relay take the call's text while the block runs; yields whether one does.

        Args:
            key: metadata of the call (relay.proto). None of ours: another router's, or of a
                gateway that has just left; or the call asks for more than text.
        """
        relay = self._relays.get(key[:_ID_BYTES])
        call_id = int.from_bytes(key[_ID_BYTES:])
        is_ours = relay is not None and len(key) == _KEY_BYTES and not relay.has(call_id)
        if relay is None or not is_ours or not call.stream.is_plain:
            yield False
            return
        with relay.joined(call_id, call):
            yield True
