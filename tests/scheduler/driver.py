"""Drives a Scheduler and a FakeWorker, checking everything after each event."""

from collections import deque
from collections.abc import Container, Sequence

from octavo.block_hash import extend_chain, root_hash
from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.journal import JournaledScheduler, replay
from octavo.v1 import scheduling_pb2, step_pb2
from tests.scheduler.fake_worker import VOCAB_SIZE, FakeWorker
from tests.scheduler.stream_model import OpenRequest

ROUTER = b"router-a"


def config(**changes: object) -> SchedulerConfig:
    """Return a small configuration; blocks of 4 tokens."""
    values: dict[str, object] = {
        "epoch": 3,
        "block_size": 4,
        "kv_groups": (GroupConfig(num_blocks=32),),
        "max_model_len": 64,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 32,
        "model_hash": b"model",
        "vocab_size": VOCAB_SIZE,
    }
    return SchedulerConfig(**{**values, **changes})  # type: ignore[arg-type]


class Driver:
    """One scheduler, its worker, and what the routers have received.

    Attributes:
        results: executed, and not yet given to the scheduler.
        plans: every plan so far, serialized.
        requests: by key.
        started: keys of requests that were planned.
        num_sampled: tokens in the results that were delivered.
        step_ns, token_ns: what results say that steps took, and each token of them; 0: nothing.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        self.config = config
        self.scheduler = JournaledScheduler(config)
        self.worker = FakeWorker(config)
        self.results: deque[step_pb2.StepResult] = deque()
        self.plans: list[bytes] = []
        self.requests: dict[bytes, OpenRequest] = {}
        self.started: set[bytes] = set()
        self.num_sampled = 0
        self.step_ns = self.token_ns = 0
        self.now_ns = 1_000
        self._in_row: dict[int, tuple[bytes, int]] = {}
        self._in_flight: deque[list[tuple[bytes, int]]] = deque()

    @property
    def num_queued(self) -> int:
        """Requests that the scheduler has and has not started."""
        return sum(
            key not in self.started and self.scheduler.has_request(key) for key in self.requests
        )

    def submit(
        self,
        prompt: Sequence[int],
        *,
        max_tokens: int = 8,
        n: int = 1,
        seed: int = 0,
        stop: Sequence[int] = (),
        tenant: str = "",
        priority: int = 0,
        timeout_ns: int | None = None,
        router_id: bytes = ROUTER,
        resume_window_ns: int = 0,
        delivered: Sequence[tuple[int, Sequence[int]]] = (),
    ) -> bytes:
        """Submit a request; returns its key. Raises what the scheduler raises."""
        key = len(self.requests).to_bytes(16, "little")
        root = root_hash(self.config.model_hash, tenant)
        request = scheduling_pb2.SubmitRequest(
            request_key=key,
            router_id=router_id,
            tenant=tenant,
            priority=priority,
            timeout_ns=timeout_ns,
            prompt_token_ids=prompt,
            block_hashes=b"".join(extend_chain(root, prompt, self.config.block_size)),
            n=n,
            seeds=[seed + i for i in range(n)],
            max_tokens=max_tokens,
            stop_token_ids=stop,
            resume_window_ns=resume_window_ns,
            delivered=[
                scheduling_pb2.DeliveredTokens(output_index=i, token_ids=tokens)
                for i, tokens in delivered
            ],
        )
        self.worker.tenants[key] = tenant
        self.scheduler.submit(request, self.now_ns)
        expires_ns = self.now_ns + timeout_ns if timeout_ns is not None else None
        room = self.config.max_sequence_len - len(prompt)
        self.requests[key] = OpenRequest(request, min(max_tokens, room), expires_ns)
        self.observe()
        return key

    def plan(self, failing: Container[int] = ()) -> step_pb2.StepPlan | None:
        """Schedule, and let the worker execute; the result waits for `deliver`."""
        plan = self.scheduler.schedule(self.now_ns)
        if plan is not None:
            self._check_plan(plan)
            self.plans.append(plan.SerializeToString())
            # Over the wire, as the worker gets it.
            result = self.worker.execute(step_pb2.StepPlan.FromString(self.plans[-1]), failing)
            result.timings.forward_ns = self.step_ns + self.token_ns * sum(plan.num_new_tokens)
            self._note_failures(plan, result)
            self.results.append(result)
            rows = [*plan.row, *(forked.row for forked in plan.forked_rows)]
            self._in_flight.append([self._in_row[row] for row in rows])
        self.observe()
        return plan

    def deliver(self) -> None:
        """Give the scheduler the oldest result."""
        result = self.results.popleft()
        self._in_flight.popleft()
        self.num_sampled += len(result.token_ids)
        self.scheduler.update(result, self.now_ns)
        self.observe()

    def step(self) -> step_pb2.StepPlan | None:
        """One turn of the plain loop."""
        plan = self.plan()
        if plan is not None:
            self.deliver()
        return plan

    def run_to_end(self, *, overlapped: bool = False, max_steps: int = 1_000) -> int:
        """Step until nothing is left to do; returns the number of steps."""
        depth = 2 if overlapped else 1
        num_steps = 0
        while True:
            plan = self.plan()
            num_steps += plan is not None
            assert num_steps <= max_steps, f"no end after {num_steps} steps"
            if self.results and (plan is None or len(self.results) == depth):
                self.deliver()
            elif plan is None:
                return num_steps

    def abort(
        self,
        key: bytes,
        output_index: int | None = None,
        *,
        reason: scheduling_pb2.AbortReason = scheduling_pb2.ABORT_REASON_CLIENT,
        final_token_count: int | None = None,
    ) -> None:
        request = self.requests.get(key)
        for index, stream in enumerate(request.streams if request else ()):
            if output_index in (None, index) and stream.reason is None:
                stream.is_aborted = True
                stream.num_counted = final_token_count
        abort = scheduling_pb2.Abort(
            request_key=key,
            output_index=output_index,
            reason=reason,
            final_token_count=final_token_count,
        )
        self.scheduler.abort(abort, self.now_ns)
        self.observe()
        for stream in request.streams if request and not request.is_lost else ():
            assert not stream.is_aborted or stream.reason is not None, "an abort had no effect"

    def set_window(self, key: bytes, output_index: int, max_position: int) -> None:
        """Open a window, or let it end, beyond what is on its way."""
        streams = self.requests[key].streams
        if output_index < len(streams):
            stream = streams[output_index]
            on_their_way = len(stream.token_ids) + len(self.results)
            stream.max_position = max(max_position, stream.max_position or on_their_way)
        self.scheduler.set_window(
            scheduling_pb2.Window(
                request_key=key, output_index=output_index, max_position=max_position
            )
        )
        self.observe()

    def lose_router(self, router_id: bytes) -> None:
        for request in self.requests.values():
            if request.submit.router_id == router_id:
                request.is_lost = True
        self.scheduler.lose_router(router_id, self.now_ns)
        self.observe()

    def lose_workers(self) -> list[step_pb2.StepResult]:
        """Replace the worker; returns the results that did not arrive in time."""
        tenants, late = self.worker.tenants, list(self.results)
        suspects = self._note_loss()
        self._in_row.clear()
        self._in_flight.clear()
        self.worker = FakeWorker(self.config)
        self.worker.tenants = tenants
        self.results.clear()
        self.scheduler.lose_workers(self.now_ns)
        self.observe()
        assert not any(self.scheduler.has_request(key) for key in suspects), "tried a third time"
        return late

    def observe(self) -> None:
        """Check the scheduler's state, and what the routers are told."""
        self.scheduler.check_invariants()
        stats = self.scheduler.stats
        assert stats.num_generated_tokens + stats.num_discarded_tokens == self.num_sampled
        for router_id, outputs in self.scheduler.take_outputs().items():
            self._receive(
                router_id, scheduling_pb2.StepOutputs.FromString(outputs.SerializeToString())
            )
        for request in self.requests.values():
            for stream in request.streams:
                is_ended = stream.reason is not None or request.is_lost
                assert is_ended or not request.is_complete(stream), "an end was not told"

    def check_end(self) -> None:
        """Check that nothing is left, and that a replay gives the same plans."""
        assert self.scheduler.is_idle
        assert not any(request.is_open for request in self.requests.values())
        assert self.scheduler.next_deadline_ns() is None
        load = self.scheduler.load()
        assert (load.num_running, load.num_waiting) == (0, 0)
        assert load.num_free_blocks == load.num_blocks
        replayed = [plan.SerializeToString() for plan in replay(self.config, self.scheduler.events)]
        assert replayed == self.plans

    def output(self, key: bytes, output_index: int = 0) -> list[int]:
        return self.requests[key].streams[output_index].token_ids

    def _receive(self, router_id: bytes, outputs: scheduling_pb2.StepOutputs) -> None:
        assert list(outputs.num_tokens) == [1] * len(outputs.token_ids)
        columns = zip(
            outputs.request_key,
            outputs.output_index,
            outputs.first_position,
            outputs.token_ids,
            strict=True,
        )
        for key, output_index, position, token_id in columns:
            request = self.requests[key]
            assert request.submit.router_id == router_id, "a token went to another router"
            request.receive(output_index, position, token_id)
        for finished in outputs.finished:
            request = self.requests[finished.request_key]
            assert request.submit.router_id == router_id
            if request.is_lost:
                for stream in request.streams:
                    stream.is_aborted = True
            request.finish(finished, self.now_ns)

    def _check_plan(self, plan: step_pb2.StepPlan) -> None:
        """Check the budget, and that nothing expired is planned."""
        assert plan.epoch == self.config.epoch and plan.step_id == len(self.plans) + 1
        assert sum(plan.num_new_tokens) <= self.config.max_num_batched_tokens
        for row in plan.freed_rows:
            del self._in_row[row]
        taken = [(added.row, added.request_key, added.output_index) for added in plan.added_rows]
        taken += [(fork.row, fork.request_key, fork.output_index) for fork in plan.forked_rows]
        for row, key, output_index in taken:
            assert row not in self._in_row
            self._in_row[row] = key, output_index
            self.started.add(key)
        assert len(self._in_row) <= self.config.max_num_seqs
        for row in plan.row:
            key, output_index = self._in_row[row]
            request = self.requests[key]
            assert request.expires_ns is None or self.now_ns < request.expires_ns
            assert request.streams[output_index].reason is None, "what has ended is planned"

    def _note_loss(self) -> list[bytes]:
        """Return the requests that two workers in a row were lost with, and no token between."""
        suspects = []
        for key, output_index in self._in_flight[0] if self._in_flight else ():
            request = self.requests[key]
            stream = request.streams[output_index]
            if stream.reason is not None:
                continue
            if stream.num_tokens_at_loss == len(stream.token_ids):
                suspects.append(key)
                for other in request.streams:
                    other.has_failed = True
            stream.num_tokens_at_loss = len(stream.token_ids)
        return suspects

    def _note_failures(self, plan: step_pb2.StepPlan, result: step_pb2.StepResult) -> None:
        for error in result.errors:
            key, output_index = self._in_row[error.row]
            self.requests[key].streams[output_index].has_failed = True
