"""Connections whose headers are too large, too slow, or no HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from octavo.gateway.limits import MAX_HEADER_BYTES, MAX_HEADERS
from octavo.v1.inference_pb2 import Delta, StreamEvent
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import FakeRouter, Request, started
from tests.gateway.raw_http import RawConnection, connect

GET = b"GET /health HTTP/1.1\r\nhost: x\r\n"


async def refusal(connection: RawConnection) -> tuple[int, str]:
    """Return status and message of the answer after which the gateway closes."""
    head, _, body = (await connection.read_to_end()).partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["message"]


TOO_LARGE = (431, "The headers are larger than 65536 bytes or 100 lines.")


async def test_headers_that_are_too_large_are_refused(gateway_alone: Gateway) -> None:
    for request_head in (
        GET + b"a: " + b"x" * MAX_HEADER_BYTES + b"\r\n\r\n",
        GET + b"a: b\r\n" * MAX_HEADERS + b"\r\n",
        b"GET /" + b"x" * MAX_HEADER_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        # These have no end: of a value, of a name, of a path.
        GET + b"a: " + b"x" * MAX_HEADER_BYTES,
        GET + b"x" * (MAX_HEADER_BYTES + 1),
        b"GET /" + b"x" * MAX_HEADER_BYTES,
    ):
        async with connect(gateway_alone.port) as connection:
            await connection.send(request_head)
            assert await refusal(connection) == TOO_LARGE


async def test_headers_just_below_the_limit_are_read(gateway_alone: Gateway) -> None:
    async with connect(gateway_alone.port) as connection:
        for _ in range(2):
            await connection.send(GET + b"a: " + b"x" * (MAX_HEADER_BYTES - 64) + b"\r\n\r\n")
            assert await connection.read_head() == 200
            await connection.reader.readexactly(len('{"status":"ok"}'))


async def test_a_large_body_is_not_taken_for_headers(gateway_alone: Gateway) -> None:
    async with connect(gateway_alone.port) as connection:
        body = b" " * (2 * MAX_HEADER_BYTES)
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        await connection.send(head + body)
        assert await connection.read_head() == 400


async def test_headers_that_come_too_slowly_are_given_up(
    gateway_alone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.gateway.http_protocol.HEADER_TIMEOUT_S", 0.01)
    for beginning in (b"", b"G", GET, GET + b"a: "):
        async with connect(gateway_alone.port) as connection:
            await connection.send(beginning)
            assert await connection.read_to_end() == b""


async def test_the_second_request_of_a_connection_may_not_be_slow_either(
    gateway_alone: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(gateway_alone.port) as connection:
        await connection.send(GET + b"\r\n")
        assert await connection.read_head() == 200
        monkeypatch.setattr("octavo.gateway.http_protocol.HEADER_TIMEOUT_S", 0.01)
        await connection.send(b"GET /heal")
        assert await connection.read_to_end() == b'{"status":"ok"}'


async def endless_answer(_: Request) -> AsyncIterator[StreamEvent]:
    yield started()
    while True:
        yield StreamEvent(delta=Delta(text="x" * 10_000, num_tokens=1))


async def test_a_client_that_does_not_read_its_answer_is_given_up(
    gateway: Gateway, fake_router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.gateway.http_protocol.STALL_S", 0.05)
    fake_router.script = endless_answer
    async with connect(gateway.port) as connection:
        body = {"model": "m", "prompt": "x", "stream": True}
        await connection.post("/v1/completions", body)
        assert await connection.read_head() == 200
        await fake_router.cancelled.get()
        answer = await connection.read_to_end()
        assert not answer.endswith(b"0\r\n\r\n"), "it was cut, not completed"


async def test_what_is_no_http_gets_an_error_body(gateway_alone: Gateway) -> None:
    for garbage in (
        b"\x00\x01\x02\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        async with connect(gateway_alone.port) as connection:
            await connection.send(garbage)
            assert await refusal(connection) == (400, "Invalid HTTP request received.")


async def test_a_client_that_says_nothing_is_no_burden_to_others(gateway_alone: Gateway) -> None:
    async with asyncio.timeout(30), connect(gateway_alone.port), connect(gateway_alone.port):
        assert (await gateway_alone.http.get("/health")).status_code == 200
