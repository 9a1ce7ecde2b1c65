"""Whatever happens in whatever order: the streams are right, and nothing leaks.

Tiny pools, an alphabet of three tokens and blocks of one to four, so that prefixes collide, blocks
run out and caches are evicted all the time. What is checked after every event is in driver.py,
fake_worker.py, stream_model.py and octavo/scheduler/invariants.py.
"""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from octavo.errors import InvalidArgument, Overloaded
from octavo.scheduler import prompt_budget, step_cost
from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.results import BadResult
from octavo.v1 import scheduling_pb2, step_pb2
from tests.scheduler.driver import Driver
from tests.scheduler.fake_worker import NUM_TOKENS, VOCAB_SIZE
from tests.scheduler.stream_model import expected_output

ROUTERS = (b"router-a", b"router-b")
MAX_DEPTH = 2

configs = st.builds(
    SchedulerConfig,
    epoch=st.just(3),
    block_size=st.integers(1, 4),
    kv_groups=st.lists(
        st.builds(GroupConfig, num_blocks=st.integers(4, 12) | st.integers(4, 32)),
        min_size=1,
        max_size=2,
    ).map(tuple),
    max_model_len=st.integers(8, 40),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(1, 16) | st.integers(8, 32),
    model_hash=st.just(b"model"),
    vocab_size=st.just(VOCAB_SIZE),
    policy=st.sampled_from(["fcfs", "priority"]),
    # The cache is where the bugs are.
    enable_prefix_caching=st.sampled_from([True, True, True, False]),
    max_num_queued_requests=st.integers(1, 8),
)
DAMAGES: dict[str, Callable[[step_pb2.StepResult], object]] = {
    "counts of drafts": lambda result: result.num_tokens.append(1),
    "a token more": lambda result: result.token_ids.append(0),
    "a token outside the vocabulary": lambda result: result.token_ids.insert(0, VOCAB_SIZE),
    "an unknown row failed": lambda result: result.errors.add(row=99, message="?"),
}

# Long common beginnings, as conversations have them, so that the prefix cache is hit.
prompts = st.builds(
    lambda beginning, length, tail: [*beginning[:length], *tail],
    st.sampled_from([(0, 1, 2, 2, 1, 0, 1, 1, 0, 2, 0, 0), (0, 1, 2, 2, 0, 0, 0, 0)]),
    st.integers(0, 12),
    st.lists(st.integers(0, NUM_TOKENS - 1), max_size=3),
)
# Disasters are rarer than work, else nothing would ever run.
rarely = st.sampled_from([True, False, False, False, False, False])
any_number = st.integers(0, 1 << 16)


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(config=configs)
    def begin(self, config: SchedulerConfig) -> None:
        self.driver = Driver(config)
        self.applied: list[step_pb2.StepResult] = []

    @rule(
        prompt=prompts,
        n=st.integers(1, 3),
        max_tokens=st.integers(1, 16),
        stop=st.sampled_from([(), (), (2,)]),
        tenant=st.sampled_from(["", "", "other"]),
        priority=st.integers(-1, 1),
        timeout_ns=st.none() | st.none() | st.integers(0, 20),
        router_id=st.sampled_from(ROUTERS),
        resume_window_ns=st.sampled_from([0, 0, 5]),
        seed=st.integers(0, 3),
        num_delivered=st.sampled_from([0, 0, 0, 1, 3]),
    )
    def submit(
        self,
        prompt: list[int],
        n: int,
        max_tokens: int,
        stop: tuple[int, ...],
        tenant: str,
        priority: int,
        timeout_ns: int | None,
        router_id: bytes,
        resume_window_ns: int,
        seed: int,
        num_delivered: int,
    ) -> None:
        driver = self.driver
        limit = driver.config.max_sequence_len
        is_valid = 0 < len(prompt) < limit and n <= driver.config.max_num_seqs
        delivered = []
        if is_valid and num_delivered:
            room = min(max_tokens, limit - len(prompt), num_delivered)
            delivered = [(n - 1, expected_output(prompt, seed + n - 1, room, stop))]
        num_live = driver.scheduler.num_running + driver.scheduler.num_waiting
        num_queued = driver.num_queued
        try:
            driver.submit(
                prompt,
                n=n,
                max_tokens=max_tokens,
                stop=stop,
                tenant=tenant,
                priority=priority,
                timeout_ns=timeout_ns,
                router_id=router_id,
                resume_window_ns=resume_window_ns,
                seed=seed,
                delivered=delivered,
            )
        except InvalidArgument as error:
            assert not is_valid and error.field in ("prompt", "n")
        except Overloaded as error:
            assert error.retry_after_s
            assert num_queued >= driver.config.max_num_queued_requests
        else:
            assert is_valid and num_queued < driver.config.max_num_queued_requests
            return
        assert driver.scheduler.num_running + driver.scheduler.num_waiting == num_live

    @rule(failing=st.none() | st.sets(st.integers(0, 3), min_size=1, max_size=2))
    def plan(self, failing: set[int] | None) -> None:
        if self.driver.scheduler.num_in_flight < MAX_DEPTH:
            self.driver.plan(failing or ())
        else:
            assert self.driver.scheduler.schedule(self.driver.now_ns) is None
            self.driver.observe()

    @precondition(lambda self: self.driver.results)
    @rule()
    def deliver(self) -> None:
        self.applied.append(self.driver.results[0])
        self.driver.deliver()

    @rule(depth=st.integers(1, MAX_DEPTH), num_turns=st.integers(1, 12))
    def run(self, depth: int, num_turns: int) -> None:
        """The plain or the overlapped loop, for a while."""
        for _ in range(num_turns):
            if len(self.driver.results) < depth:
                self.driver.plan()
            if len(self.driver.results) >= depth:
                self.deliver()

    @precondition(lambda self: self.applied)
    @rule(which=any_number, epoch=st.sampled_from([0, 2, 3, 4]), step_id=st.sampled_from([0, 999]))
    def deliver_stale(self, which: int, epoch: int, step_id: int) -> None:
        """A result applied before, of workers that are gone, of another epoch, or of no plan."""
        result = step_pb2.StepResult()
        result.CopyFrom(self.applied[which % len(self.applied)])
        if self.driver.results and epoch != self.driver.config.epoch:
            result.CopyFrom(self.driver.results[0])
        result.epoch = epoch
        result.step_id += step_id
        stats = self.driver.scheduler.stats
        num_stale = stats.num_stale_results
        self.driver.scheduler.update(result, self.driver.now_ns)
        assert stats.num_stale_results == num_stale + 1
        assert not self.driver.scheduler.take_outputs()

    @precondition(lambda self: self.driver.results)
    @rule(damage=st.sampled_from(sorted(DAMAGES)))
    def deliver_garbage(self, damage: str) -> None:
        """A result that its plan does not allow changes nothing."""
        due, *later = self.driver.results
        result = step_pb2.StepResult()
        result.CopyFrom(due)
        DAMAGES[damage](result)
        for wrong in (result, *later):
            num_in_flight = self.driver.scheduler.num_in_flight
            with pytest.raises(BadResult):
                self.driver.scheduler.update(wrong, self.driver.now_ns)
            assert self.driver.scheduler.num_in_flight == num_in_flight
            assert not self.driver.scheduler.take_outputs()

    @precondition(lambda self: self.driver.requests)
    @rule(
        which=any_number,
        output_index=st.none() | st.integers(0, 3),
        reason=st.sampled_from(
            [scheduling_pb2.ABORT_REASON_CLIENT, scheduling_pb2.ABORT_REASON_STOP_STRING]
        ),
        final_token_count=st.none() | st.integers(0, 12),
    )
    def abort(
        self,
        which: int,
        output_index: int | None,
        reason: scheduling_pb2.AbortReason,
        final_token_count: int | None,
    ) -> None:
        key = self.key(which)
        self.driver.abort(key, output_index, reason=reason, final_token_count=final_token_count)
        # Again, and one that nobody knows: nothing happens twice.
        self.driver.abort(key, output_index)
        self.driver.abort(b"?" * 16)

    @precondition(lambda self: self.driver.requests)
    @rule(which=any_number, output_index=st.integers(0, 3), max_position=st.integers(0, 14))
    def set_window(self, which: int, output_index: int, max_position: int) -> None:
        self.driver.set_window(self.key(which), output_index, max_position)

    @precondition(lambda self: self.driver.requests)
    @rule(which=any_number, again=rarely)
    def submit_again(self, which: int, again: bool) -> None:
        """A known key changes nothing."""
        request = self.driver.requests[self.key(which)]
        if again and request.is_open:
            self.driver.scheduler.submit(request.submit, self.driver.now_ns)
            self.driver.observe()

    @rule(router_id=st.sampled_from(ROUTERS), is_lost=rarely)
    def lose_router(self, router_id: bytes, is_lost: bool) -> None:
        if is_lost:
            self.driver.lose_router(router_id)

    @rule(are_lost=rarely)
    def lose_workers(self, are_lost: bool) -> None:
        if are_lost:
            self.applied += self.driver.lose_workers()

    @rule(
        step_ns=st.sampled_from([0, 1_000, 10**6, 10**12]),
        token_ns=st.sampled_from([0, 1, 10**5, 10**9]),
    )
    def change_speed(self, step_ns: int, token_ns: int) -> None:
        """The device tells other times, or none."""
        self.driver.step_ns, self.driver.token_ns = step_ns, token_ns

    @rule(nanoseconds=st.integers(1, 10))
    def tick(self, nanoseconds: int) -> None:
        self.driver.now_ns += nanoseconds

    def teardown(self) -> None:
        """Open every window and let everything end, in a bounded number of steps."""
        if not hasattr(self, "driver"):
            return
        driver = self.driver
        lengths = 0
        for key, request in driver.requests.items():
            for index in range(request.submit.n):
                driver.set_window(key, index, 1_000)
                lengths += len(request.submit.prompt_token_ids) + request.max_output_tokens
        driver.run_to_end(overlapped=True, max_steps=2 * lengths + 10)
        driver.now_ns += 1_000
        driver.run_to_end()
        driver.check_end()

    def key(self, which: int) -> bytes:
        return list(self.driver.requests)[which % len(self.driver.requests)]


def run(max_examples: int, num_steps: int) -> None:
    run_state_machine_as_test(
        SchedulerMachine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=num_steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def has_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let prompts have single tokens of a step, and often none."""
    monkeypatch.setattr(prompt_budget, "_MIN_PROMPT_TOKENS", 1)
    monkeypatch.setattr(step_cost, "_MEASURED_EVERY", 3)


@pytest.mark.usefixtures("has_small_steps")
def test_any_sequence_of_events_keeps_streams_exact() -> None:
    run(max_examples=40, num_steps=40)


@pytest.mark.slow
@pytest.mark.usefixtures("has_small_steps")
def test_many_sequences_of_events_and_small_steps_keep_streams_exact() -> None:
    run(max_examples=300, num_steps=60)


@pytest.mark.slow
def test_many_sequences_of_events_keep_streams_exact() -> None:
    run(max_examples=300, num_steps=60)
