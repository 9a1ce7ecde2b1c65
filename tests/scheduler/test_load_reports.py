"""What routers are told of the load, and when."""

import asyncio

import pytest

from octavo.block_hash import extend_chain, root_hash
from octavo.scheduler import load_reports
from octavo.scheduler.load_reports import LoadReports
from octavo.scheduler.sessions import RouterSession, RouterSessions
from octavo.v1 import scheduling_pb2
from tests.scheduler.driver import Driver, config

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 2, 1]
SHORT_HASHES = [block[:4] for block in extend_chain(root_hash(b"model", ""), PROMPT, 4)]


class Observer:
    """A router that has attached, and the loads it was sent."""

    def __init__(self, sessions: RouterSessions) -> None:
        hello = scheduling_pb2.Hello(router_id=b"observer", incarnation=1)
        self._session: RouterSession = sessions.attach(hello)
        self._loads: asyncio.Queue[scheduling_pb2.Load] = asyncio.Queue()

    async def run(self) -> None:
        async def write(response: scheduling_pb2.AttachResponse) -> None:
            self._loads.put_nowait(response.load)

        await self._session.send_all(write)

    async def next(self) -> scheduling_pb2.Load:
        async with asyncio.timeout(20):
            return await self._loads.get()


@pytest.fixture
def driver() -> Driver:
    return Driver(config())


@pytest.fixture
def sessions() -> RouterSessions:
    return RouterSessions()


async def test_the_counts_come_first_and_the_prefixes_after_them(
    driver: Driver, sessions: RouterSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_reports, "_PREFIXES_PERIOD_S", 2 * load_reports._LOAD_PERIOD_S)
    reports, observer = LoadReports(driver.scheduler, sessions), Observer(sessions)
    driver.submit(PROMPT)
    driver.step()
    reports.notice()
    running = asyncio.create_task(observer.run())
    counts = await observer.next()
    assert counts.num_running == 1
    assert not counts.HasField("cached_prefixes")
    both = await observer.next()
    assert both.num_running == 1
    assert both.cached_prefixes == b"".join(reversed(SHORT_HASHES))
    running.cancel()


async def test_a_drain_is_told_at_once(driver: Driver, sessions: RouterSessions) -> None:
    reports, observer = LoadReports(driver.scheduler, sessions), Observer(sessions)
    reports.begin_drain()
    sessions.close()
    await observer.run()
    load = await observer.next()
    assert load.is_draining
    assert not load.HasField("cached_prefixes")


async def test_a_router_that_attaches_is_told_all(driver: Driver, sessions: RouterSessions) -> None:
    driver.submit(PROMPT)
    driver.step()
    load = LoadReports(driver.scheduler, sessions).current()
    assert (load.num_running, load.num_blocks, load.is_draining) == (1, 32, False)
    assert load.cached_prefixes == b"".join(reversed(SHORT_HASHES))
