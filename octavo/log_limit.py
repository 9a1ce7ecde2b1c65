"""Keeps what others can cause at will from filling the log."""

import time
from collections.abc import Callable, Hashable

_PERIOD_S = 1.0


class LogLimit:
    """Lets a line about each subject pass at most once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_logged_s: dict[Hashable, float] = {}

    def allows(self, subject: Hashable) -> bool:
        """Say whether to log now, and count it as logged."""
        now_s = self._clock()
        if now_s - self._last_logged_s.get(subject, -_PERIOD_S) < _PERIOD_S:
            return False
        # Subjects are often a peer's to choose: old ones are forgotten, so they do not pile up.
        self._last_logged_s = {
            other: since_s
            for other, since_s in self._last_logged_s.items()
            if now_s - since_s < _PERIOD_S
        }
        self._last_logged_s[subject] = now_s
        return True
