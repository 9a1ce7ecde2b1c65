"""Generations end when their client leaves, and when the gateway drains."""

import asyncio
from typing import Any

import pytest

from octavo.errors import Unavailable
from octavo.gateway.errors import ClientGone
from octavo.gateway.in_flight import InFlight
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import (
    MODEL,
    FakeRouter,
    answer,
    hang,
    start_and_hang,
)
from tests.gateway.raw_http import connect
from tests.gateway.sse import chunks

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize("script", [hang, start_and_hang])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_generation(
    gateway: Gateway, fake_router: FakeRouter, script: Any, stream: bool
) -> None:
    fake_router.script = script
    async with connect(gateway.port) as connection:
        await connection.post(CHAT, BODY | {"stream": stream})
        await fake_router.arrived.get()
        if stream and script is start_and_hang:
            assert await connection.read_head() == 200
    await asyncio.wait_for(fake_router.cancelled.get(), 10)
    assert fake_router.num_running == 0


async def test_a_client_that_leaves_cancels_all_its_prompts(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    fake_router.script = start_and_hang
    async with connect(gateway.port) as connection:
        await connection.post(COMPLETIONS, {"model": MODEL, "prompt": ["a", "b", "c"]})
        for _ in range(3):
            await fake_router.arrived.get()
    for _ in range(3):
        await asyncio.wait_for(fake_router.cancelled.get(), 10)


async def test_a_client_that_leaves_disturbs_no_other(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    go_on = asyncio.Event()

    async def wait_then_answer(request: Any) -> Any:
        async for event in answer(request):
            yield event
            await go_on.wait()

    fake_router.script = wait_then_answer
    staying = asyncio.create_task(gateway.http.post(CHAT, json=BODY | {"stream": True}))
    await fake_router.arrived.get()
    async with connect(gateway.port) as connection:
        await connection.post(CHAT, BODY | {"stream": True})
        await fake_router.arrived.get()
    await asyncio.wait_for(fake_router.cancelled.get(), 10)
    go_on.set()
    assert chunks((await staying).content)[-1]["choices"][0]["finish_reason"] == "stop"


async def test_draining_lets_streams_finish_and_takes_no_more(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    go_on = asyncio.Event()

    async def wait_then_answer(request: Any) -> Any:
        await go_on.wait()
        async for event in answer(request):
            yield event

    fake_router.script = wait_then_answer
    running = asyncio.create_task(gateway.http.post(CHAT, json=BODY | {"stream": True}))
    await fake_router.arrived.get()
    draining = asyncio.create_task(gateway.in_flight.drain(timeout_s=30))
    await asyncio.sleep(0)
    ready = await gateway.http.get("/ready")
    refused = await gateway.http.post(CHAT, json=BODY)
    assert (ready.status_code, refused.status_code) == (503, 503)
    assert refused.headers["retry-after"] == "1"
    assert "shutting down" in refused.json()["error"]["message"]
    assert (await gateway.http.get("/health")).status_code == 200
    assert not draining.done()
    go_on.set()
    await draining
    assert chunks((await running).content)[-1]["choices"][0]["finish_reason"] == "stop"
    assert len(fake_router.requests) == 1


async def test_what_does_not_finish_in_time_is_cut_with_a_word(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    fake_router.script = start_and_hang
    whole = asyncio.create_task(gateway.http.post(CHAT, json=BODY))
    await fake_router.arrived.get()
    async with connect(gateway.port) as connection:
        await connection.post(CHAT, BODY | {"stream": True})
        assert await connection.read_head() == 200
        await gateway.in_flight.drain(timeout_s=0)
        stream = await connection.reader.readuntil(b"data: [DONE]\n\n")
    assert b'"code":"unavailable"' in stream
    assert (await whole).status_code == 503


class Client:
    """The receiving end of an ASGI request whose body has been read."""

    def __init__(self) -> None:
        self.has_left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.has_left.wait()
        return {"type": "http.disconnect"}


async def test_leaving_cancels_the_block_and_nothing_after_it() -> None:
    client, in_flight = Client(), InFlight()
    client.has_left.set()
    with pytest.raises(ClientGone):
        async with in_flight.until_gone(client.receive):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task and task.cancelling() == 0
    # Would raise if the cancellation had been left behind.
    await asyncio.sleep(0)


async def test_a_block_that_ends_by_itself_is_left_alone() -> None:
    client, in_flight = Client(), InFlight()
    async with in_flight.until_gone(client.receive):
        pass
    client.has_left.set()
    await asyncio.sleep(0)
    await in_flight.drain(timeout_s=30)


async def test_anothers_cancellation_goes_on() -> None:
    client, in_flight = Client(), InFlight()
    is_inside = asyncio.Event()

    async def work() -> None:
        async with in_flight.until_gone(client.receive):
            is_inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await is_inside.wait()
    task.cancel()
    client.has_left.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_goes_on() -> None:
    client, in_flight = Client(), InFlight()
    with pytest.raises(ZeroDivisionError):
        async with in_flight.until_gone(client.receive):
            raise ZeroDivisionError
    await in_flight.drain(timeout_s=30)
    with pytest.raises(Unavailable):
        async with in_flight.until_gone(client.receive):
            raise AssertionError("not reached")
