"""When a process that ended is started again, and when that is given up."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Delays that double from failure to failure, and a limit on failures."""

    first_delay_s: float = 0.2
    longest_delay_s: float = 10.0
    max_failures: int = 5
    """More of them within `window_s` than this is a crash loop."""
    window_s: float = 60.0
    """A process that ran this long is healthy: its next failure counts as a first one."""
    stopped_limit_s: float = 10.0
    """A process that a signal has stopped for so long is killed."""


@dataclass(slots=True)
class FailureHistory:
    """The failures of one process. Only the code that restarts it calls this."""

    policy: RestartPolicy
    _recent_s: deque[float] = field(default_factory=deque)
    _num_in_a_row: int = 0

    def next_delay_s(self, started_s: float, ended_s: float) -> float | None:
        """Record a life of the process; return seconds until the next one, None to give up."""
        policy = self.policy
        if ended_s - started_s >= policy.window_s:
            self._num_in_a_row = 0
        self._recent_s.append(ended_s)
        while self._recent_s[0] <= ended_s - policy.window_s:
            self._recent_s.popleft()
        if len(self._recent_s) > policy.max_failures:
            return None
        delay_s = policy.first_delay_s * float(2**self._num_in_a_row)
        self._num_in_a_row += 1
        return min(delay_s, policy.longest_delay_s)
