"""octavo.restart_policy as tables: lives in, delays out."""

import pytest

from octavo.restart_policy import FailureHistory, RestartPolicy


def delays(*lives: tuple[float, float]) -> list[float | None]:
    history = FailureHistory(RestartPolicy())
    return [history.next_delay_s(started_s, ended_s) for started_s, ended_s in lives]


def test_delays_double_up_to_ten_seconds() -> None:
    # One failure in 15 s: never more than five in a minute.
    lives = [(15.0 * i, 15.0 * i + 1) for i in range(8)]
    assert delays(*lives) == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_a_healthy_minute_starts_the_delays_again() -> None:
    assert delays((0, 1), (1, 2), (2, 62), (62, 63)) == [0.2, 0.4, 0.2, 0.4]


@pytest.mark.parametrize(("sixth_s", "gives_up"), [(59.9, True), (60.0, False)])
def test_gives_up_at_the_sixth_failure_within_a_minute(sixth_s: float, gives_up: bool) -> None:
    last = delays(*[(0, 0)] * 5, (sixth_s, sixth_s))[-1]
    assert (last is None) == gives_up
