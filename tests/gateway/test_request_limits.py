"""How much a client may send: just below the limit, at it, and just above it."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from octavo.errors import InvalidArgument
from octavo.gateway.limits import MAX_BODY_BYTES, MAX_HEADERS
from octavo.gateway.openai_types import CompletionBody
from octavo.gateway.router_requests import completion_requests
from tests.gateway.conftest import Gateway
from tests.gateway.raw_http import RawConnection, connect

COMPLETION_DECODER = msgspec.json.Decoder(CompletionBody)


def complete(**fields: Any) -> None:
    raw = msgspec.json.encode({"model": "m", "prompt": "a"} | fields)
    completion_requests(COMPLETION_DECODER.decode(raw), "")


@pytest.mark.parametrize(
    ("limit", "check", "field"),
    [
        (32, lambda k: complete(prompt=["a"] * k), "prompt"),
        (16, lambda k: complete(prompt=["a"] * 4, n=k), "n"),
        (32, lambda k: complete(prompt=["a"] * 2, n=k), "n"),
        (5, lambda k: complete(echo=True, logprobs=k), "logprobs"),
    ],
)
def test_a_body_has_its_limit(limit: int, check: Callable[[int], object], field: str) -> None:
    check(limit - 1)
    check(limit)
    with pytest.raises(InvalidArgument) as refusal:
        check(limit + 1)
    assert refusal.value.field == field


@pytest.mark.parametrize("past_limit", [-1, 0, 1])
async def test_bytes_of_a_body(gateway: Gateway, past_limit: int) -> None:
    body = b"{" + b" " * (MAX_BODY_BYTES + past_limit - 2) + b"}"
    status = (await gateway.http.post("/detokenize", content=body)).status_code
    assert status == (413 if past_limit > 0 else 400)


@pytest.mark.parametrize("past_limit", [-1, 0, 1])
async def test_lines_of_headers(gateway_alone: Gateway, past_limit: int) -> None:
    lines = b"a: b\r\n" * (MAX_HEADERS + past_limit)
    async with connect(gateway_alone.port) as connection:
        await connection.send(b"GET /health HTTP/1.1\r\n" + lines + b"\r\n")
        assert await connection.read_head() == (431 if past_limit > 0 else 200)


@pytest.mark.parametrize("past_limit", [-1, 0, 1])
async def test_characters_of_a_request_id(gateway_alone: Gateway, past_limit: int) -> None:
    label = "x" * (128 + past_limit)
    response = await gateway_alone.http.get("/health", headers={"x-request-id": label})
    assert (response.headers["x-request-id"] == label) == (past_limit <= 0)


async def is_served(connection: RawConnection) -> bool:
    await connection.send(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
    return await connection.read_head() == 200


async def test_open_connections(gateway_alone: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.gateway.http_protocol.MAX_CONNECTIONS", 2)
    async with connect(gateway_alone.port) as first, connect(gateway_alone.port) as second:
        assert await is_served(first) and await is_served(second)
        async with connect(gateway_alone.port) as third:
            head, _, body = (await third.read_to_end()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert json.loads(body)["error"]["code"] == "too_many_connections"
        assert await is_served(first)
