"""Everything the scheduler knows, and the few ways a sequence changes hands.

         start                    finish
WAITING ───────► RUNNING ─────────────────► FINISHED
   ▲                │                          ▲
   └────────────────┘ preempt, roll_back       │ finish (aborted, expired, or ended by a
   └───────────────────────────────────────────┘ token that was on its way when preempted)
"""

from collections import deque

from octavo.v1 import common_pb2, scheduling_pb2

from .config import SchedulerConfig
from .kv_cache import KVCacheManager
from .outputs import Outputs, SchedulerStats, usage_of
from .planned_step import PlannedStep
from .request import Request, Sequence, SequenceStatus
from .request_table import RequestTable
from .running_set import RunningSet
from .step_cost import StepCost
from .waiting_queue import WaitingQueue

_LOST_TWICE = "The model failed twice while it computed this request, which is not tried again."


class SchedulerState:
    """Owned by Scheduler; written by its decisions and by the results that come back.

    Attributes:
        in_flight: plans whose results are not back, oldest first.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.kv_cache = KVCacheManager(config)
        self.waiting = WaitingQueue()
        self.running = RunningSet(config.max_num_seqs)
        self.requests = RequestTable(config.max_num_queued_requests, config.max_num_queued_tokens)
        self.outputs = Outputs()
        self.stats = SchedulerStats()
        self.step_cost = StepCost(config)
        self.in_flight: deque[PlannedStep] = deque()

    def last_step_in_flight(self, sequence: Sequence) -> PlannedStep | None:
        """Return the last plan with the sequence, if its result is not back."""
        for step in self.in_flight:
            if step.step_id == sequence.last_step_id:
                return step
        return None

    def start(self, sequence: Sequence) -> None:
        """Give a waiting sequence, which has its blocks, a row."""
        self.waiting.remove(sequence)
        self.running.add(sequence)
        sequence.status = SequenceStatus.RUNNING

    def preempt(self, sequence: Sequence) -> None:
        """Take row and blocks; what was computed can be found again until it is overwritten."""
        self.running.land(sequence)
        self.kv_cache.register(sequence, self.last_step_in_flight(sequence))
        self._return_to_queue(sequence)

    def roll_back(self, sequence: Sequence) -> None:
        """Take row and blocks, trusting nothing the plans in flight compute for the sequence."""
        if sequence.status is SequenceStatus.RUNNING:
            self._return_to_queue(sequence)
        sequence.request.num_discarded_tokens += self._forget_samples(sequence)

    def finish(
        self,
        sequence: Sequence,
        reason: common_pb2.FinishReason,
        now_ns: int,
        *,
        stop_token_id: int | None = None,
        error: str = "",
    ) -> None:
        """End an output; its blocks are free at once."""
        request = sequence.request
        if sequence.status is SequenceStatus.RUNNING:
            self.running.land(sequence)
            self.kv_cache.register(sequence, self.last_step_in_flight(sequence))
            self._release(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED
        for step in self.in_flight:
            step.voided.add(sequence)
        request.num_discarded_tokens += self._forget_samples(sequence)
        request.num_output_tokens += len(sequence.output_token_ids)
        request.num_unfinished -= 1
        self.stats.num_finished[reason] += 1
        finished = scheduling_pb2.OutputFinished(
            request_key=request.key,
            output_index=sequence.output_index,
            reason=reason,
            stop_token_id=stop_token_id,
            error=error,
        )
        if not request.num_unfinished:
            finished.usage.CopyFrom(usage_of(request, now_ns))
        self.outputs.add_finished(request.router_id, finished)
        if not request.num_unfinished:
            self.requests.remove(request)

    def finish_complete(self, sequence: Sequence, now_ns: int) -> None:
        """End an output whose last token is one of the stop tokens, or the last one allowed."""
        token_id = sequence.output_token_ids[-1]
        if token_id in sequence.request.stop_token_ids:
            reason = common_pb2.FINISH_REASON_STOP
            self.finish(sequence, reason, now_ns, stop_token_id=token_id)
        else:
            self.finish(sequence, common_pb2.FINISH_REASON_LENGTH, now_ns)

    def finish_all(
        self,
        request: Request,
        reason: common_pb2.FinishReason,
        now_ns: int,
        *,
        error: str = "",
    ) -> None:
        """End every output of the request that has not ended."""
        for sequence in request.sequences:
            if sequence.status is not SequenceStatus.FINISHED:
                self.finish(sequence, reason, now_ns, error=error)

    def lose_workers(self, now_ns: int) -> None:
        """Put everything that ran back into the queue, with all its tokens; no KV is left.

        But a request that lost two workers and got no token in between is not tried a third time:
        it may be what kills them.
        """
        self.stats.num_worker_losses += 1
        suspects = self._suspects()
        running = self.running.snapshot()
        for sequence in running:
            self._return_to_queue(sequence)
        for sequence in self.waiting.snapshot():
            sequence.request.num_discarded_tokens += self._forget_samples(sequence)
        for request in self.requests.all():
            request.num_resumptions += request.started_ns is not None
        self.in_flight.clear()
        self.running.clear()
        self.kv_cache.reset()
        for request in suspects:
            self.finish_all(request, common_pb2.FINISH_REASON_ERROR, now_ns, error=_LOST_TWICE)

    def _suspects(self) -> list[Request]:
        """Note who was in the step that was lost; return the requests of those who were before."""
        if not self.in_flight:
            return []
        # Steps after the oldest had not begun.
        step, suspects = self.in_flight[0], []
        for sequence in (*step.sequences, *(sibling for _, sibling in step.forks)):
            if sequence.status is SequenceStatus.FINISHED:
                continue
            if sequence.num_tokens_at_loss == sequence.num_tokens:
                suspects.append(sequence.request)
            sequence.num_tokens_at_loss = sequence.num_tokens
        return suspects

    def _return_to_queue(self, sequence: Sequence) -> None:
        sequence.request.num_preemptions += 1
        self.stats.num_preemptions += 1
        self._release(sequence)
        sequence.status = SequenceStatus.WAITING
        self.waiting.push(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.running.land(sequence)
        num_computed = sequence.num_computed_tokens - sequence.num_prefix_tokens
        sequence.request.num_computed_tokens += num_computed
        self.kv_cache.release(sequence)
        self.running.remove(sequence)
        sequence.num_computed_tokens = sequence.num_prefix_tokens = 0

    def _forget_samples(self, sequence: Sequence) -> int:
        """Expect no more tokens from the plans in flight; returns how many were to come."""
        num_to_come = sequence.num_expected_tokens - sequence.num_tokens
        sequence.num_expected_tokens -= num_to_come
        return num_to_come
