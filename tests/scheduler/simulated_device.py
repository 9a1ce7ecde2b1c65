"""A scheduler on a device whose steps take a computed time; no clock, no sleep.

seconds of a step = fixed + tokens · per_token + sampled rows · per_sample
                    + Σ (token · its context) · per_pair + Σ context · per_read
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.scheduler import Scheduler
from octavo.scheduler.step_cost import StepCost
from octavo.v1 import scheduling_pb2, step_pb2

BLOCK_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds; the defaults were measured with SmolLM2-135M in bfloat16 on two cores of a Zen 4.

    There 31 rows decode in 36 ms, and a prompt token beside them takes 0.54 ms + 0.30 µs for each
    token before it, whatever the chunk: 6 % off at most steps, between 4 and 256 tokens.
    """

    fixed_s: float = 6e-3
    per_token_s: float = 0.54e-3
    per_sample_s: float = 0.38e-3
    per_pair_s: float = 0.3e-6
    per_read_s: float = 0.0
    """For each token in the cache of a row: keys and values come from memory, once a step."""
    free_tokens: int = 0
    """While a step has no more, it takes no longer: what memory-bound devices do."""

    def step_s(self, num_tokens: int, num_samples: int, num_pairs: int, num_read: int = 0) -> float:
        return (
            self.fixed_s
            + max(num_tokens - self.free_tokens, 0) * self.per_token_s
            + num_samples * self.per_sample_s
            + num_pairs * self.per_pair_s
            + num_read * self.per_read_s
        )


@dataclass
class Simulation:
    """Runs requests; one output each.

    Attributes:
        now_s: since the start.
        token_times_s: key → when each of its tokens came.
        chunks: number of prompt tokens in each step.
    """

    speed: Speed
    max_num_batched_tokens: int = 512
    is_overlapped: bool = True
    slowdown: Callable[[int], float] = lambda step_id: 1.0
    tells_times: bool = True
    now_s: float = 0.0
    token_times_s: dict[bytes, list[float]] = field(default_factory=dict)
    submitted_s: dict[bytes, float] = field(default_factory=dict)
    chunks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            SchedulerConfig(
                epoch=1,
                block_size=BLOCK_SIZE,
                kv_groups=(GroupConfig(num_blocks=8192),),
                max_model_len=8192,
                max_num_seqs=256,
                max_num_batched_tokens=self.max_num_batched_tokens,
                enable_prefix_caching=False,
            )
        )
        self._rows: dict[int, tuple[bytes, int]] = {}
        self._results: deque[step_pb2.StepResult] = deque()

    def submit(self, num_prompt_tokens: int, max_tokens: int) -> bytes:
        key = len(self.submitted_s).to_bytes(16, "little")
        self.scheduler.submit(
            scheduling_pb2.SubmitRequest(
                request_key=key,
                prompt_token_ids=[1] * num_prompt_tokens,
                n=1,
                seeds=[0],
                max_tokens=max_tokens,
            ),
            self.now_ns,
        )
        self.submitted_s[key] = self.now_s
        self.token_times_s[key] = []
        return key

    def run(self, until: Callable[[], bool]) -> None:
        """Step until something is so, or nothing is left to do."""
        depth = 2 if self.is_overlapped else 1
        while not until():
            plan = self.scheduler.schedule(self.now_ns)
            if plan is not None:
                self._results.append(self._execute(plan))
            if self._results and (plan is None or len(self._results) == depth):
                self.scheduler.update(self._results.popleft(), self.now_ns)
            elif plan is None:
                return

    def run_to_first_token(self, key: bytes) -> None:
        self.run(lambda: bool(self.token_times_s[key]))

    def run_to_end(self) -> None:
        self.run(lambda: False)
        assert self.scheduler.is_idle

    @property
    def step_cost(self) -> StepCost:
        return self.scheduler._state.step_cost

    @property
    def now_ns(self) -> int:
        return int(self.now_s * 1e9)

    def ttft_s(self, key: bytes) -> float:
        return self.token_times_s[key][0] - self.submitted_s[key]

    def pauses_s(self, keys: list[bytes], start_s: float, end_s: float) -> list[float]:
        """Return, sorted, the times between two tokens of the outputs, from those that end then."""
        return sorted(
            later - earlier
            for key in keys
            for earlier, later in zip(
                self.token_times_s[key], self.token_times_s[key][1:], strict=False
            )
            if start_s < later <= end_s
        )

    def _execute(self, plan: step_pb2.StepPlan) -> step_pb2.StepResult:
        for added in plan.added_rows:
            self._rows[added.row] = added.request_key, 0
        num_pairs = num_read = 0
        for row, count in zip(plan.row, plan.num_new_tokens, strict=True):
            key, position = self._rows[row]
            num_pairs += count * position + count * count // 2
            num_read += position
            self._rows[row] = key, position + count
        num_tokens = sum(plan.num_new_tokens)
        self.chunks.append(sum(count for count in plan.num_new_tokens if count > 1))
        seconds = self.speed.step_s(num_tokens, sum(plan.needs_sample), num_pairs, num_read)
        seconds *= self.slowdown(plan.step_id)
        self.now_s += seconds
        for row, sample in zip(plan.row, plan.needs_sample, strict=True):
            if sample:
                self.token_times_s[self._rows[row][0]].append(self.now_s)
        timings = step_pb2.StepTimings(forward_ns=int(seconds * 1e9) if self.tells_times else 0)
        return step_pb2.StepResult(
            epoch=plan.epoch,
            step_id=plan.step_id,
            token_ids=[1] * sum(plan.needs_sample),
            timings=timings,
        )
