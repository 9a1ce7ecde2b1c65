"""Notices a worker that lives and does not get on: it beats, and its step never ends."""

from octavo.v1 import step_pb2


class StepWatch:
    """How long the result that is due has been owed. Belongs to the worker client.

    Heartbeats come from a thread of their own, so that they tell of a main thread that hangs.
    """

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s`: how long a worker that owes a result may stay in one phase."""
        self._timeout_s = timeout_s
        self.forget()

    def forget(self) -> None:
        """Nothing is owed any more: the worker is lost."""
        self._num_owed = 0
        self._owed_since_s = 0.0

    def plan_sent(self, now_s: float) -> None:
        if not self._num_owed:
            self._owed_since_s = now_s
        self._num_owed += 1

    def result_came(self, now_s: float) -> None:
        self._num_owed = max(self._num_owed - 1, 0)
        self._owed_since_s = now_s

    def complaint(self, heartbeat: step_pb2.Heartbeat, now_s: float) -> str | None:
        """Return what is wrong, by what a worker says of itself; None: nothing."""
        # A worker that was idle for long has only just got its plan.
        stuck_s = min(heartbeat.phase_ns / 1e9, now_s - self._owed_since_s)
        if not self._num_owed or stuck_s <= self._timeout_s:
            return None
        return (
            f"stuck for {stuck_s:.0f} s (--step-timeout-s {self._timeout_s:g}); {seen(heartbeat)}"
        )


def seen(heartbeat: step_pb2.Heartbeat) -> str:
    """Return what a heartbeat tells, for the log."""
    phase = step_pb2.WorkerPhase.Name(heartbeat.phase).removeprefix("WORKER_PHASE_").lower()
    return (
        f"last seen {phase} for {heartbeat.phase_ns / 1e9:.1f} s"
        f" after step {heartbeat.last_step_id}"
    )
