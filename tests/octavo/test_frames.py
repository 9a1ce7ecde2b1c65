"""Broken frames: all are counted, few are logged."""

from structlog.testing import capture_logs

from octavo.frames import BrokenFrames


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
