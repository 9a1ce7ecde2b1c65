"""A client that costs next to nothing: it counts what a server streams, and parses none of it.

On a machine that client and server share, the client's own work would be measured as the server's.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_EVENT = b"data: "
_NUM_OUTPUT_TOKENS = re.compile(rb'"completion_tokens":(\d+)')
_TAIL_BYTES = 1024
"""The last events of a stream, the usage among them, are shorter."""


class StreamFailed(Exception):
    """A stream ended otherwise than it should; the text is what the server said last."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """What the streams of one call were sent, all together."""

    num_output_tokens: int
    num_events: int


async def stream_all(
    port: int, model: str, prompts: Sequence[Sequence[int]], output_len: int
) -> Streamed:
    """Post each prompt to /v1/completions of the server on `port`, all at once.

    Raises:
        StreamFailed: a stream had another number of tokens than `output_len`.
    """
    opened = (open_stream(port, model, prompt, output_len) for prompt in prompts)
    streams = await asyncio.gather(*opened)
    for stream in streams:
        await stream.finished(output_len)
    return Streamed(len(prompts) * output_len, sum(stream.num_events for stream in streams))


class Stream(asyncio.Protocol):
    """One request and its answer, on a connection of its own.

    Attributes:
        num_events: received so far.
        arrivals_s: when data came, on the loop's clock; a server may send several events at once.
        sent_s: when the request was sent.
    """

    def __init__(self, request: bytes) -> None:
        self.num_events = 0
        self.arrivals_s: list[float] = []
        self.sent_s = 0.0
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._request = request

    @property
    def num_output_tokens(self) -> int:
        """Tokens of the output, as the server counts them; 0 if it did not say."""
        found = _NUM_OUTPUT_TOKENS.findall(self._tail)
        return int(found[-1]) if found else 0

    async def finished(self, output_len: int) -> None:
        """Wait for the end; raises StreamFailed if it had another number of tokens."""
        await self._ended
        if self.num_output_tokens != output_len:
            raise StreamFailed(self._tail.decode(errors="replace"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.sent_s = self._loop.time()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if num_events := data.count(_EVENT):
            self.num_events += num_events
            self.arrivals_s.append(self._loop.time())
        self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set_result(None)


class CountedStream(Stream):
    """A stream that is told with each event how many tokens it has.

    Events alone do not say it: a token that is half a character is sent with the next one.

    Attributes:
        num_tokens: of the output, at each arrival.
    """

    def __init__(self, request: bytes) -> None:
        super().__init__(request)
        self.num_tokens: list[int] = []

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if len(self.arrivals_s) > len(self.num_tokens):
            self.num_tokens.append(self.num_output_tokens)


async def open_stream(port: int, model: str, prompt: Sequence[int], output_len: int) -> Stream:
    """Post one prompt to /v1/completions of the server on `port`; return its stream at once."""
    request = _request(port, model, prompt, output_len, {"include_usage": True})
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: Stream(request), "127.0.0.1", port)
    return stream


async def open_counted_stream(
    port: int, model: str, prompt: Sequence[int], output_len: int
) -> CountedStream:
    """The same, with a few more bytes to each event."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    request = _request(port, model, prompt, output_len, options)
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: CountedStream(request), "127.0.0.1", port)
    return stream


def _request(
    port: int,
    model: str,
    prompt: Sequence[int],
    output_len: int,
    stream_options: Mapping[str, bool],
) -> bytes:
    body = json.dumps(
        {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": output_len,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": stream_options,
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
