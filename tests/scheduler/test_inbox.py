"""The inbox: bounded work in a turn, in order, and nothing taken that nobody waits for."""

import asyncio

import pytest

from octavo.errors import FailedPrecondition, InvalidArgument
from octavo.scheduler.inbox import TOKENS_PER_TURN, Inbox
from octavo.v1 import scheduling_pb2

PROMPT = [0] * (TOKENS_PER_TURN // 2)


class RecordingScheduler:
    """Stands for the core: notes what it is given."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []

    def submit(self, request: scheduling_pb2.SubmitRequest, now_ns: int) -> None:
        if request.n == 0:
            raise InvalidArgument("n has to be at least 1", field="n")
        self.keys.append(request.request_key)


@pytest.fixture
def scheduler() -> RecordingScheduler:
    return RecordingScheduler()


@pytest.fixture
def inbox(scheduler: RecordingScheduler) -> Inbox:
    return Inbox(scheduler)  # type: ignore[arg-type]


def request(key: bytes, *, n: int = 1, router_id: bytes = b"r") -> scheduling_pb2.SubmitRequest:
    return scheduling_pb2.SubmitRequest(
        request_key=key, prompt_token_ids=PROMPT, n=n, router_id=router_id
    )


async def submitted(
    inbox: Inbox, *requests: scheduling_pb2.SubmitRequest
) -> list["asyncio.Task[None]"]:
    """Submit all at once, and let each call run as far as it goes."""
    tasks = [asyncio.create_task(inbox.submit(each, 0)) for each in requests]
    await asyncio.sleep(0)
    return tasks


async def test_a_turn_takes_what_its_work_allows_in_order(
    inbox: Inbox, scheduler: RecordingScheduler
) -> None:
    tasks = await submitted(inbox, *(request(key) for key in (b"a", b"b", b"c", b"d", b"e")))
    assert scheduler.keys == [b"a", b"b"]
    assert inbox.has_waiting
    inbox.begin_turn(0)
    assert scheduler.keys == [b"a", b"b", b"c", b"d"]
    inbox.begin_turn(0)
    await asyncio.gather(*tasks)
    assert scheduler.keys == [b"a", b"b", b"c", b"d", b"e"]
    assert not inbox.has_waiting


async def test_who_comes_later_does_not_overtake(
    inbox: Inbox, scheduler: RecordingScheduler
) -> None:
    await submitted(inbox, *(request(key) for key in (b"a", b"b", b"c")))
    inbox.begin_turn(0)
    await submitted(inbox, request(b"d"))
    assert scheduler.keys == [b"a", b"b", b"c", b"d"]


async def test_a_refusal_reaches_the_one_who_submitted(inbox: Inbox) -> None:
    (_, _, refused) = await submitted(inbox, request(b"a"), request(b"b"), request(b"c", n=0))
    inbox.begin_turn(0)
    with pytest.raises(InvalidArgument, match="n has to be"):
        await refused


async def test_a_submitter_who_has_left_is_forgotten(
    inbox: Inbox, scheduler: RecordingScheduler
) -> None:
    tasks = await submitted(inbox, *(request(key) for key in (b"a", b"b", b"c", b"d")))
    tasks[2].cancel()
    await asyncio.sleep(0)
    inbox.begin_turn(0)
    assert scheduler.keys == [b"a", b"b", b"d"]


async def test_what_is_said_of_a_waiting_request_finds_it(
    inbox: Inbox, scheduler: RecordingScheduler
) -> None:
    tasks = await submitted(inbox, *(request(key) for key in (b"a", b"b", b"c", b"d")))
    inbox.expedite(b"d", 0)
    inbox.expedite(b"unknown", 0)
    await tasks[3]
    assert scheduler.keys == [b"a", b"b", b"d"]


async def test_a_router_that_leaves_takes_its_waiting_requests_along(
    inbox: Inbox, scheduler: RecordingScheduler
) -> None:
    gone = await submitted(
        inbox,
        *(request(key) for key in (b"a", b"b", b"c")),
        request(b"d", router_id=b"other"),
    )
    inbox.drop(b"r")
    with pytest.raises(FailedPrecondition, match="detached"):
        await gone[2]
    inbox.begin_turn(0)
    assert scheduler.keys == [b"a", b"b", b"d"]


async def test_a_key_that_waits_already_changes_nothing(
    inbox: Inbox, scheduler: RecordingScheduler
) -> None:
    tasks = await submitted(inbox, *(request(key) for key in (b"a", b"b", b"c", b"c")))
    await tasks[3]
    inbox.begin_turn(0)
    await tasks[2]
    assert scheduler.keys == [b"a", b"b", b"c"]
