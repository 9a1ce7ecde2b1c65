"""A worker is hung if it owes a result and stays in one phase; nothing else is."""

import pytest

from octavo.scheduler.step_watch import StepWatch
from octavo.v1 import step_pb2


def beat(phase_s: float) -> step_pb2.Heartbeat:
    return step_pb2.Heartbeat(
        phase=step_pb2.WORKER_PHASE_FORWARD, phase_ns=int(phase_s * 1e9), last_step_id=6
    )


@pytest.fixture
def watch() -> StepWatch:
    watch = StepWatch(timeout_s=10.0)
    watch.plan_sent(100.0)
    return watch


def test_a_phase_that_does_not_end_is_told(watch: StepWatch) -> None:
    assert watch.complaint(beat(9.0), 109.0) is None
    assert watch.complaint(beat(11.0), 111.0) == (
        "stuck for 11 s (--step-timeout-s 10); last seen forward for 11.0 s after step 6"
    )


def test_a_worker_that_had_nothing_to_do_has_just_begun(watch: StepWatch) -> None:
    assert watch.complaint(beat(3600.0), 101.0) is None


def test_a_worker_that_gets_on_is_not_stuck(watch: StepWatch) -> None:
    assert watch.complaint(beat(1.0), 200.0) is None


def test_each_result_begins_the_time_of_the_next(watch: StepWatch) -> None:
    watch.plan_sent(101.0)
    watch.result_came(108.0)
    assert watch.complaint(beat(60.0), 117.0) is None
    assert watch.complaint(beat(60.0), 119.0) is not None


def test_nothing_is_owed_after_the_last_result_or_a_loss(watch: StepWatch) -> None:
    watch.result_came(101.0)
    assert watch.complaint(beat(60.0), 160.0) is None
    watch.plan_sent(200.0)
    watch.forget()
    assert watch.complaint(beat(60.0), 260.0) is None
