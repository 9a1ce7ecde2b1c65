"""Who is given up for not reading, and who is not."""

import asyncio

import pytest

from octavo.router.event_writer import EventWriter
from octavo.router.output_stream import SlowReader
from octavo.v1 import inference_pb2


class Client:
    """A call's context, whose client reads while `reads` is set."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.reads.set()
        self.numbers: list[int] = []

    async def write(self, event: inference_pb2.StreamEvent) -> None:
        await self.reads.wait()
        self.numbers.append(event.sequence_number)


async def test_events_are_numbered_from_zero() -> None:
    client = Client()
    writer = EventWriter(client, stall_timeout_s=60)
    async with writer.watched():
        for _ in range(3):
            await writer.write(inference_pb2.StreamEvent())
    assert client.numbers == [0, 1, 2]


async def test_a_client_that_does_not_read_is_given_up() -> None:
    client = Client()
    writer = EventWriter(client, stall_timeout_s=0.01)
    with pytest.raises(SlowReader, match=r"not read for 0\.01 s"):
        async with writer.watched():
            await writer.write(inference_pb2.StreamEvent())
            client.reads.clear()
            await writer.write(inference_pb2.StreamEvent())
    assert client.numbers == [0]


async def test_a_call_that_has_nothing_to_send_may_take_longer() -> None:
    client = Client()
    writer = EventWriter(client, stall_timeout_s=0.01)
    async with writer.watched():
        await writer.write(inference_pb2.StreamEvent())
        await asyncio.sleep(0.1)
        await writer.write(inference_pb2.StreamEvent())
    assert client.numbers == [0, 1]


async def test_a_timeout_of_the_call_itself_is_not_the_clients() -> None:
    writer = EventWriter(Client(), stall_timeout_s=60)
    with pytest.raises(TimeoutError, match="of its own"):
        async with writer.watched():
            raise TimeoutError("of its own")


async def test_a_client_that_does_not_read_from_its_relay_is_given_up() -> None:
    writer = EventWriter(Client(), stall_timeout_s=0.01)
    with pytest.raises(SlowReader):
        async with writer.watched():
            writer.set_reading(False)
            writer.set_reading(True)
            await asyncio.sleep(0.1)
            writer.set_reading(False)
            await asyncio.Event().wait()
