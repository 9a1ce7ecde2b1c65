"""benchmarks.light_client: it counts what is streamed, and notices what is missing."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from benchmarks.light_client import (
    StreamFailed,
    open_counted_stream,
    open_stream,
    stream_all,
)

HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


def answer(num_tokens: int) -> Iterator[bytes]:
    yield HEAD
    for _ in range(num_tokens):
        yield b'data: {"choices":[{"text":"x"}]}\n\n'
    yield b'data: {"choices":[],"usage":{"completion_tokens":%d}}\n\ndata: [DONE]\n\n' % num_tokens


async def serve(num_tokens: int) -> asyncio.Server:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in answer(num_tokens):
            writer.write(part)
            await writer.drain()
        writer.close()

    return await asyncio.start_server(respond, "127.0.0.1", 0)


async def test_tokens_and_events_of_all_streams_are_counted() -> None:
    async with await serve(5) as server:
        port = server.sockets[0].getsockname()[1]
        streamed = await stream_all(port, "model", [[1], [2], [3]], 5)
    assert streamed.num_output_tokens == 15
    assert streamed.num_events == 3 * (5 + 2)


async def test_a_stream_that_ends_early_is_an_error() -> None:
    async with await serve(4) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(StreamFailed, match="completion_tokens"):
            await stream_all(port, "model", [[1]], 5)


async def test_arrivals_come_after_the_request_and_in_order() -> None:
    async with await serve(5) as server:
        port = server.sockets[0].getsockname()[1]
        stream = await open_stream(port, "model", [1], 5)
        await stream.finished(5)
    assert stream.arrivals_s
    assert [stream.sent_s, *stream.arrivals_s] == sorted([stream.sent_s, *stream.arrivals_s])


async def test_a_token_without_an_event_of_its_own_is_counted_with_the_next() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
        assert json.loads(body)["stream_options"]["continuous_usage_stats"]
        writer.write(HEAD)
        for count in (1, 3, 4, 4):
            writer.write(b'data: {"choices":[],"usage":{"completion_tokens":%d}}\n\n' % count)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        stream = await open_counted_stream(port, "model", [1], 4)
        await stream.finished(4)
    # What is sent at once may arrive at once.
    assert len(stream.num_tokens) == len(stream.arrivals_s)
    assert {*stream.num_tokens} <= {1, 3, 4}
    assert stream.num_tokens == sorted(stream.num_tokens) and stream.num_tokens[-1] == 4
