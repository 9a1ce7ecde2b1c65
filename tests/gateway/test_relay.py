"""Text that the router relays: whole, in order, bounded, and with the end of its call."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from octavo.errors import InternalError, Unavailable
from octavo.gateway.relay import RelayedText
from octavo.gateway.router_client import RouterClient, RouterStream
from octavo.v1.inference_pb2 import GenerateRequest
from tests.gateway.fake_router import finished, usage
from tests.gateway.relaying_router import RelayingRouter

REQUEST = GenerateRequest(text="prompt")


@pytest.fixture
async def relaying(router_address: str) -> AsyncIterator[RelayingRouter]:
    router = RelayingRouter()
    async with asyncio.timeout(60), router.serving(router_address):
        yield router


@pytest.fixture
async def client(relaying: RelayingRouter, router_address: str) -> AsyncIterator[RouterClient]:
    """A client that is attached."""
    async with RouterClient(router_address) as client:
        await client.wait_connected()
        await relayed(client, relaying)
        yield client


async def relayed(client: RouterClient, relaying: RelayingRouter) -> None:
    """Call until the client has an attachment to name; nobody waits for one."""
    while True:
        async with client.generate([REQUEST], "label"):
            if await relaying.call_ids.get() is not None:
                return


async def contents(stream: RouterStream) -> list[str | None]:
    """Return the texts of what is relayed, and the kinds of the other events."""
    return [
        event.text if isinstance(event, RelayedText) else event.WhichOneof("event")
        async for event in stream.events()
    ]


async def test_the_text_comes_before_the_usage_however_late(
    client: RouterClient, relaying: RelayingRouter
) -> None:
    async with client.generate([REQUEST], "label") as (stream,):
        call_id = await relaying.call_ids.get()
        assert call_id is not None
        relaying.own.put_nowait(usage())
        relaying.own.put_nowait(None)
        events = asyncio.create_task(contents(stream))
        relaying.relay(call_id, "Hel")
        # What is for nobody does no harm.
        relaying.relay(call_id + 100, "lost", is_end=True)
        relaying.relay(call_id, "lo", is_end=True)
        assert "".join(str(event) for event in await events) == "Hellofinishedusage"


async def test_what_is_not_read_yet_becomes_one(
    client: RouterClient, relaying: RelayingRouter
) -> None:
    async with client.generate([REQUEST], "label") as (stream,):
        call_id = await relaying.call_ids.get()
        assert call_id is not None
        relaying.relay(call_id, "a", "b", "c", is_end=True)
        relaying.own.put_nowait(usage())
        relaying.own.put_nowait(None)
        assert await contents(stream) == ["abc", "finished", "usage"]


async def test_text_that_was_all_there_before_anybody_read_is_not_lost(
    client: RouterClient, relaying: RelayingRouter
) -> None:
    async with client.generate([REQUEST], "label") as (stream,):
        call_id = await relaying.call_ids.get()
        assert call_id is not None
        relaying.relay(call_id, "all", is_end=True)
        while not stream._relayed.num_finished:
            await asyncio.sleep(0)
        relaying.own.put_nowait(usage())
        relaying.own.put_nowait(None)
        assert await contents(stream) == ["all", "finished", "usage"]


async def test_a_call_whose_client_does_not_read_is_paused_and_resumed(
    client: RouterClient, relaying: RelayingRouter
) -> None:
    async with client.generate([REQUEST], "label") as (stream,):
        call_id = await relaying.call_ids.get()
        assert call_id is not None
        relaying.relay(call_id, "x" * 60_000)
        relaying.relay(call_id, "x" * 60_000)
        assert (await relaying.controls.get()).paused_call_ids == [call_id]
        events = stream.events()
        event = await anext(events)
        assert isinstance(event, RelayedText)
        assert len(event.text) == 120_000
        assert (await relaying.controls.get()).resumed_call_ids == [call_id]


async def test_a_call_that_fails_ends_after_the_text_that_came(
    client: RouterClient, relaying: RelayingRouter
) -> None:
    async with client.generate([REQUEST], "label") as (stream,):
        call_id = await relaying.call_ids.get()
        assert call_id is not None
        events = stream.events()
        relaying.relay(call_id, "some")
        assert await anext(events) == RelayedText(0, 1, "some")
        relaying.own.put_nowait(InternalError("broken"))
        with pytest.raises(InternalError, match="broken"):
            await anext(events)


async def test_calls_fail_with_their_attachment_and_the_next_one_makes_another(
    client: RouterClient, relaying: RelayingRouter
) -> None:
    async with client.generate([REQUEST], "label") as (stream,):
        assert await relaying.call_ids.get() is not None
        relaying.end_attachment()
        with pytest.raises(Unavailable):
            await contents(stream)
    async with client.generate([REQUEST], "label") as (stream,):
        assert await relaying.call_ids.get() is None
        for event in (finished(), usage(), None):
            relaying.own.put_nowait(event)
        assert await contents(stream) == ["finished", "usage"]
    await relayed(client, relaying)
