"""Decides which tokens come next: a pure function of what happened and when, event by event.

No socket, no clock, no await, no randomness: the same events give the same plans, byte for byte.
How a request gets in is in submission.py, which tokens a step computes in planning.py, what a
result changes in results.py; all work on the one SchedulerState.
"""

from octavo.failpoints import failpoint
from octavo.v1 import common_pb2, scheduling_pb2, step_pb2

from .config import GroupConfig, SchedulerConfig
from .invariants import check_state
from .outputs import SchedulerStats
from .planning import plan_step
from .request import SequenceStatus
from .results import BadResult, apply_result
from .state import SchedulerState
from .submission import build_request, check_request

__all__ = ["BadResult", "GroupConfig", "Scheduler", "SchedulerConfig", "SchedulerStats"]

MAX_STEPS_IN_FLIGHT = 2
"""One that runs, and the next, planned before the result of the first is back."""


class Scheduler:
    """The state of every request, and the decisions. Only the step loop calls this.

    `schedule` may be called before the `update` of the step before (overlapped) or after (plain):
    the tokens are the same. `now_ns` is any clock that never goes back.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._state = SchedulerState(config)
        self._last_step_id = 0
        self._last_arrival = 0

    # What happens to requests.

    def submit(self, request: scheduling_pb2.SubmitRequest, now_ns: int) -> None:
        """Take a request on; one whose key is known changes nothing.

        Raises:
            RequestError: a field is wrong, or the queue is full.
        """
        state = self._state
        if state.requests.get(request.request_key) is not None:
            return
        check_request(request, self._config)
        state.requests.check_queue(len(request.prompt_token_ids))
        self._last_arrival += 1
        accepted = build_request(request, self._config, arrival=self._last_arrival, now_ns=now_ns)
        state.requests.add(accepted)
        state.outputs.add_router(accepted.router_id)
        state.stats.num_requests += 1
        for sequence in accepted.sequences:
            state.waiting.push(sequence)
        for sequence in accepted.sequences:
            if sequence.is_complete:
                state.finish_complete(sequence, now_ns)

    def abort(self, abort: scheduling_pb2.Abort, now_ns: int) -> None:
        """End outputs early; what is unknown or has ended is left alone."""
        request = self._state.requests.get(abort.request_key)
        if request is None:
            return
        reason = common_pb2.FINISH_REASON_ABORT
        if abort.reason == scheduling_pb2.ABORT_REASON_STOP_STRING:
            reason = common_pb2.FINISH_REASON_STOP
        for sequence in request.sequences:
            is_meant = abort.output_index == sequence.output_index or not abort.HasField(
                "output_index"
            )
            if is_meant and sequence.status is not SequenceStatus.FINISHED:
                if abort.HasField("final_token_count"):
                    sequence.cut(abort.final_token_count)
                self._state.finish(sequence, reason, now_ns)

    def set_window(self, window: scheduling_pb2.Window) -> None:
        """Let an output go on up to a position; a lower one than before is outdated."""
        request = self._state.requests.get(window.request_key)
        if request is None or window.output_index >= len(request.sequences):
            return
        sequence = request.sequences[window.output_index]
        if sequence.max_position is None or window.max_position > sequence.max_position:
            self._state.running.land(sequence)
            sequence.set_window(window.max_position)

    def lose_router(self, router_id: bytes, now_ns: int) -> None:
        """End the router's requests, each after its resume window."""
        state = self._state
        for request in state.requests.of_router(router_id):
            request.is_orphan = True
            if request.resume_window_ns:
                expires_ns = now_ns + request.resume_window_ns
                if request.expires_ns is None or expires_ns < request.expires_ns:
                    state.requests.set_expiry(request, expires_ns)
            else:
                state.finish_all(request, common_pb2.FINISH_REASON_ABORT, now_ns)
        if not state.requests.has_router(router_id):
            state.outputs.drop(router_id)

    def has_request(self, request_key: bytes) -> bool:
        return self._state.requests.get(request_key) is not None

    # What happens to workers.

    def lose_workers(self, now_ns: int) -> None:
        """All KV is gone: whatever ran goes back to waiting, with all its tokens.

        A request ends with an error if two workers in a row were lost in a step with it.
        """
        self._state.lose_workers(now_ns)

    # Steps.

    def expire(self, now_ns: int) -> None:
        """End the requests whose time is up; `schedule` does it too."""
        self._expire(now_ns)

    def schedule(self, now_ns: int) -> step_pb2.StepPlan | None:
        """Plan a step. None: nothing to compute, or MAX_STEPS_IN_FLIGHT plans are under way."""
        failpoint("scheduler.before_schedule")
        state = self._state
        self._expire(now_ns)
        if len(state.in_flight) >= MAX_STEPS_IN_FLIGHT:
            return None
        step = plan_step(state, self._last_step_id + 1, now_ns)
        if not step.sequences:
            return None
        self._last_step_id = step.step_id
        state.in_flight.append(step)
        state.stats.num_steps += 1
        return step.close(
            self._config.epoch,
            self._config.vocab_size,
            state.running.take_freed_rows(),
            state.kv_cache.end_step(),
        )

    def update(self, result: step_pb2.StepResult, now_ns: int) -> None:
        """Apply the result of the oldest plan under way; raises BadResult and changes nothing.

        A result of another epoch, applied before, or never asked for is only counted.
        """
        failpoint("scheduler.before_update")
        apply_result(self._state, result, now_ns)

    # What the loop asks.

    def take_outputs(self) -> dict[bytes, scheduling_pb2.StepOutputs]:
        """Return, by router, what has happened since the last call."""
        state = self._state
        taken = state.outputs.take()
        for router_id in taken:
            if not state.requests.has_router(router_id):
                state.outputs.drop(router_id)
        return taken

    def next_deadline_ns(self) -> int | None:
        """Return when `schedule` has a request to end, if none ends before."""
        return self._state.requests.next_expiry_ns()

    def load(self) -> scheduling_pb2.Load:
        pool = self._state.kv_cache.groups[0].pool
        return scheduling_pb2.Load(
            num_waiting=self.num_waiting,
            num_running=self.num_running,
            num_free_blocks=pool.num_free,
            num_blocks=len(pool.blocks),
        )

    def cached_prefixes(self) -> bytes:
        """Return what routers are told of the prefix cache; every group caches the same blocks."""
        return self._state.kv_cache.groups[0].cache.digest()

    def check_invariants(self) -> None:
        """Raise AssertionError, with a sentence, if the state contradicts itself."""
        check_state(self._state)

    @property
    def stats(self) -> SchedulerStats:
        return self._state.stats

    @property
    def is_idle(self) -> bool:
        """Whether there is no request, and no result to come."""
        return not self._state.requests and not self._state.in_flight

    @property
    def num_running(self) -> int:
        return len(self._state.running)

    @property
    def num_waiting(self) -> int:
        return len(self._state.waiting)

    @property
    def num_in_flight(self) -> int:
        """Plans whose results are not back."""
        return len(self._state.in_flight)

    def _expire(self, now_ns: int) -> None:
        while (request := self._state.requests.pop_expired(now_ns)) is not None:
            self._state.finish_all(request, request.expiry_reason, now_ns)
