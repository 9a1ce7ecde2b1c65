"""Router sessions: in order, bounded, and one for each router."""

import asyncio

import pytest

from octavo.errors import FailedPrecondition, Overloaded
from octavo.scheduler.sessions import RouterSessions
from octavo.v1 import scheduling_pb2


def hello(incarnation: int = 1, router_id: bytes = b"router") -> scheduling_pb2.Hello:
    return scheduling_pb2.Hello(router_id=router_id, incarnation=incarnation)


def outputs(*token_ids: int) -> scheduling_pb2.StepOutputs:
    return scheduling_pb2.StepOutputs(token_ids=token_ids)


async def test_messages_go_to_their_router_in_order_and_the_last_is_sent_before_the_end() -> None:
    sessions = RouterSessions()
    first, second = sessions.attach(hello()), sessions.attach(hello(router_id=b"other"))
    sessions.deliver({b"router": outputs(1), b"other": outputs(2), b"gone": outputs(3)})
    sessions.deliver({b"router": outputs(4)})
    sessions.broadcast(scheduling_pb2.Load(num_running=5))
    sessions.close()
    sent: list[list[int]] = []

    async def write(response: scheduling_pb2.AttachResponse) -> None:
        sent.append([*response.outputs.token_ids, response.load.num_running])

    await first.send_all(write)
    assert sent == [[1, 0], [4, 0], [5]]
    sent.clear()
    await second.send_all(write)
    assert sent == [[2, 0], [5]]


async def test_a_router_that_does_not_read_is_cut_and_the_others_are_not() -> None:
    sessions = RouterSessions(max_queued_bytes=200)
    slow, quick = sessions.attach(hello()), sessions.attach(hello(router_id=b"other"))
    read = asyncio.Event()

    async def write_slowly(response: scheduling_pb2.AttachResponse) -> None:
        await read.wait()

    async def write(response: scheduling_pb2.AttachResponse) -> None:
        pass

    tasks = [
        asyncio.create_task(slow.send_all(write_slowly)),
        asyncio.create_task(quick.send_all(write)),
    ]
    for _ in range(40):
        sessions.deliver({b"router": outputs(*range(10)), b"other": outputs(*range(10))})
        await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="left more than 200 bytes unread"):
        slow.cut_off.result()
    assert not quick.cut_off.done()
    for task in tasks:
        task.cancel()


async def test_what_was_read_makes_room_for_more() -> None:
    sessions = RouterSessions(max_queued_bytes=200)
    session = sessions.attach(hello())
    received = 0

    async def write(response: scheduling_pb2.AttachResponse) -> None:
        nonlocal received
        received += 1

    task = asyncio.create_task(session.send_all(write))
    for count in range(1, 101):
        sessions.deliver({b"router": outputs(*range(10))})
        while received < count:
            await asyncio.sleep(0)
    assert not session.cut_off.done()
    task.cancel()


async def test_a_later_attachment_replaces_the_earlier_one() -> None:
    sessions = RouterSessions()
    earlier = sessions.attach(hello(incarnation=1))
    later = sessions.attach(hello(incarnation=2))
    with pytest.raises(FailedPrecondition, match="attached again"):
        earlier.cut_off.result()
    assert not sessions.detach(earlier)
    assert b"router" in sessions
    assert sessions.detach(later)
    assert b"router" not in sessions


@pytest.mark.parametrize("incarnation", [2, 3])
async def test_a_stray_of_an_earlier_attachment_is_refused(incarnation: int) -> None:
    sessions = RouterSessions()
    session = sessions.attach(hello(incarnation=3))
    with pytest.raises(FailedPrecondition, match=f"incarnation 3; {incarnation} is not later"):
        sessions.attach(hello(incarnation=incarnation))
    assert not session.cut_off.done()
