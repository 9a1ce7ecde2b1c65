"""Frames between scheduler and worker: what protobuf makes; broken ones counted, few logged."""

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from octavo.frames import BrokenFrames, envelope
from octavo.v1 import step_pb2


def test_each_peer_is_logged_once_a_second_and_every_frame_is_counted() -> None:
    now_s = 1000.0
    broken = BrokenFrames(lambda: now_s)
    with capture_logs() as logs:
        for _ in range(100):
            broken.add(b"one", "cut off")
        broken.add(b"two", "not a message")
        now_s += 1.0
        broken.add(b"one", "cut off")
    assert broken.count == 102
    assert [(log["peer"], log["reason"]) for log in logs] == [
        ("b'one'", "cut off"),
        ("b'two'", "not a message"),
        ("b'one'", "cut off"),
    ]


def test_peers_that_choose_ever_new_names_take_no_memory() -> None:
    now_s = 1000.0
    broken = BrokenFrames(lambda: now_s)
    with capture_logs():
        for number in range(1000):
            now_s += 0.1
            broken.add(str(number).encode(), "cut off")
    assert len(broken._limit._last_logged_s) <= 11


@given(st.integers(0, 5000), st.text(max_size=300))
def test_an_envelope_is_the_frame_that_protobuf_makes(num_tokens: int, reason: str) -> None:
    result = step_pb2.StepResult(epoch=1, step_id=2, token_ids=range(num_tokens))
    assert (
        envelope(step_pb2.WorkerFrame.RESULT_FIELD_NUMBER, result)
        == step_pb2.WorkerFrame(result=result).SerializeToString()
    )
    refused = step_pb2.WorkerRefused(reason=reason)
    assert (
        envelope(step_pb2.SchedulerFrame.REFUSED_FIELD_NUMBER, refused)
        == step_pb2.SchedulerFrame(refused=refused).SerializeToString()
    )
