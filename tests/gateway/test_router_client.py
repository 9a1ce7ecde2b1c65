"""The only code that calls the router: its streams, its connections, its errors."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from octavo.errors import InternalError, InvalidArgument, Overloaded, RequestError, Unavailable
from octavo.gateway import router_client
from octavo.gateway.router_client import RouterClient
from octavo.gateway.server import listen
from octavo.v1.inference_pb2 import ChatRequest, GenerateRequest, StreamEvent
from tests.gateway.fake_router import (
    BareStatus,
    FakeRouter,
    answer,
    fail_with,
    finished,
    hang,
    start_and_hang,
    started,
)


@pytest.fixture
async def client(fake_router: FakeRouter, router_address: str) -> AsyncIterator[RouterClient]:
    async with RouterClient(router_address) as client:
        await client.wait_connected()
        yield client


async def kinds_of_events(client: RouterClient) -> list[str | None]:
    async with client.generate([ChatRequest()], "label") as (stream,):
        events = [event async for event in stream.events()]
    return [event.WhichOneof("event") for event in events if isinstance(event, StreamEvent)]


async def test_a_stream_ends_with_usage(client: RouterClient) -> None:
    assert await kinds_of_events(client) == ["delta", "delta", "delta", "finished", "usage"]


@pytest.mark.parametrize("events", [[], [finished()], [started()], [started(), finished()]])
async def test_a_stream_that_breaks_off_is_the_routers_failure(
    client: RouterClient, fake_router: FakeRouter, events: list[Any]
) -> None:
    async def script(request: Any) -> Any:
        for event in events:
            yield event

    fake_router.script = script
    with pytest.raises(InternalError, match="The router failed"):
        await kinds_of_events(client)


@pytest.mark.parametrize(
    ("code", "error_type"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.INTERNAL, InternalError),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.UNIMPLEMENTED, InternalError),
    ],
)
async def test_a_status_that_grpc_made_up_keeps_its_text(
    client: RouterClient,
    fake_router: FakeRouter,
    code: grpc.StatusCode,
    error_type: type[RequestError],
) -> None:
    fake_router.script = fail_with(BareStatus(code, "ipv4:10.0.0.7:50051 refused"))
    with pytest.raises(error_type) as raised:
        await kinds_of_events(client)
    assert "10.0.0.7" not in raised.value.message


async def test_one_that_is_refused_ends_all(client: RouterClient, fake_router: FakeRouter) -> None:
    def script(request: Any) -> Any:
        refused = fail_with(InvalidArgument("No.", field="prompt"))
        return refused(request) if request.text == "bad" else hang(request)

    fake_router.script = script
    requests = [GenerateRequest(text="good"), GenerateRequest(text="bad")]
    with pytest.raises(InvalidArgument, match="No."):
        async with client.generate(requests, "label"):
            raise AssertionError("not reached")
    assert (await fake_router.cancelled.get()) == requests[0]


async def test_leaving_the_block_cancels_what_still_runs(
    client: RouterClient, fake_router: FakeRouter
) -> None:
    fake_router.script = start_and_hang
    with pytest.raises(ZeroDivisionError):
        async with client.generate([ChatRequest()], "label"):
            raise ZeroDivisionError
    await fake_router.cancelled.get()


async def test_more_streams_than_a_connection_takes_go_over_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(router_client, "_STREAMS_PER_CHANNEL", 2)
    with listen("127.0.0.1", 0) as listener:
        # TCP, because the connections of a unix socket all have the same name.
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    router = FakeRouter()
    router.script = start_and_hang
    async with router.serving(address), RouterClient(address) as client:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(client.generate([ChatRequest()], "label"))
            assert [router.peers.count(peer) for peer in dict.fromkeys(router.peers)] == [2, 2, 1]
        router.script = answer
        await kinds_of_events(client)
        assert router.peers[-1] == router.peers[0]


async def test_a_router_that_comes_back_is_found(router_address: str) -> None:
    async with RouterClient(router_address) as client:
        for _ in range(2):
            router = FakeRouter()
            async with router.serving(router_address):
                await client.wait_connected()
                assert len(await kinds_of_events(client)) == 5
            with pytest.raises(Unavailable):
                await kinds_of_events(client)
