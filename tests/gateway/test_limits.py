"""Bodies that are too large or too slow."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from octavo.gateway.limits import MAX_BODY_BYTES
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import FakeRouter
from tests.gateway.raw_http import connect

CHAT = "/v1/chat/completions"


def assert_too_large(response: httpx.Response) -> None:
    assert response.status_code == 413
    assert response.json() == {
        "error": {
            "message": "The body is larger than 4194304 bytes; send less.",
            "type": "invalid_request_error",
            "param": None,
            "code": "body_too_large",
        }
    }


async def test_a_body_of_20_mb_is_refused_and_the_connection_goes_on(gateway: Gateway) -> None:
    assert_too_large(await gateway.http.post(CHAT, content=b"x" * 20_000_000))
    assert (await gateway.http.get("/health")).status_code == 200


async def test_a_body_that_does_not_tell_its_length_is_counted(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(2 * MAX_BODY_BYTES // 65536):
            yield b" " * 65536

    assert_too_large(await gateway.http.post(CHAT, content=pieces()))
    assert fake_router.requests == []


async def test_a_declared_length_is_refused_before_the_body_comes(gateway: Gateway) -> None:
    async with connect(gateway.port) as connection:
        length = MAX_BODY_BYTES + 1
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
        await connection.send(head.encode())
        assert await connection.read_head() == 413


async def test_a_body_of_the_largest_size_is_read(gateway: Gateway) -> None:
    response = await gateway.http.post(CHAT, content=b" " * MAX_BODY_BYTES)
    assert response.status_code == 400


async def test_a_client_that_sends_on_after_its_answer_is_closed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.gateway.http_protocol.LINGER_S", 0.01)
    async with connect(gateway.port) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n"
        await connection.send(head.encode() + b"begin")
        assert (await connection.read_to_end()).startswith(b"HTTP/1.1 413 ")


async def test_a_body_that_takes_too_long_is_given_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.gateway.limits.BODY_TIMEOUT_S", 0.01)
    async with connect(gateway.port) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"
        await connection.send(head.encode() + b"begin")
        assert await connection.read_head() == 408


async def test_a_client_that_leaves_amid_its_body_is_forgotten(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    async with connect(gateway.port) as connection:
        head = (
            f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n"
        )
        await connection.send(head.encode())
        # Now the gateway waits for the body.
        assert await connection.read_head() == 100
    counted = f'_requests_total{{method="POST",route="{CHAT}",status="499"}} 1.0'
    async with asyncio.timeout(10):
        while counted not in (await gateway.http.get("/metrics")).text:
            pass
    assert fake_router.requests == []
