"""The same events give the same plans."""

from octavo.scheduler.config import GroupConfig
from octavo.scheduler.journal import EventKind, JournaledScheduler, replay
from tests.scheduler.driver import Driver, config


def test_replayed_events_give_the_same_plans_byte_for_byte() -> None:
    driver = Driver(config(kv_groups=(GroupConfig(num_blocks=6),)))
    for i in range(4):
        driver.submit([i % 3, 1, 2, 0, 1], n=2, timeout_ns=40)
        driver.plan(failing={0} if i == 1 else ())
        driver.now_ns += 15
        driver.deliver()
    driver.lose_workers()
    driver.scheduler.expire(driver.now_ns)
    driver.observe()
    driver.run_to_end(overlapped=True)
    replayed = [plan.SerializeToString() for plan in replay(driver.config, driver.scheduler.events)]
    assert len(replayed) > 10
    assert replayed == driver.plans


def test_bounded_journal_keeps_the_last_events() -> None:
    scheduler = JournaledScheduler(config(), max_events=2)
    scheduler.lose_router(b"router", 0)
    scheduler.schedule(1)
    scheduler.schedule(2)
    assert [(event.kind, event.now_ns) for event in scheduler.events] == [
        (EventKind.SCHEDULE, 1),
        (EventKind.SCHEDULE, 2),
    ]
