"""What the scheduler tells its operator: Prometheus metrics, and a line every ten seconds."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from octavo.histogram import Histogram
from octavo.v1 import common_pb2, scheduling_pb2, step_pb2

from .scheduler import Scheduler
from .step_cost import step_ns

_STATUS_PERIOD_S = 10.0
_STEP_BUCKETS_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1, 5)
_REQUEST_BUCKETS_S = (1e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

_COUNTERS = {
    "num_requests": ("requests", "Requests accepted."),
    "num_steps": ("steps", "Steps planned."),
    "num_prompt_tokens": ("prompt_tokens", "Prompt tokens of requests that started."),
    "num_cached_tokens": ("cached_tokens", "Of these, found in the prefix cache."),
    "num_computed_tokens": ("computed_tokens", "Tokens run through the model."),
    "num_generated_tokens": ("generated_tokens", "Tokens delivered."),
    "num_discarded_tokens": ("discarded_tokens", "Tokens sampled and thrown away."),
    "num_preemptions": ("preemptions", "Outputs that lost their blocks."),
    "num_stale_results": ("stale_results", "Results that came too late or twice."),
    "num_worker_losses": ("worker_losses", "Times that the workers, and all KV, were lost."),
}


class StepTimes:
    """Where the time of steps goes, and of `requests`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        parts = Histogram(
            "octavo_scheduler_step_seconds",
            "Time of each part of a step: schedule, encode (the plan), send, deliver (outputs to"
            " the routers), wait (for the result), execute (in the worker, beside the others),"
            " decode (the result), update.",
            ("part",),
            buckets=_STEP_BUCKETS_S,
            registry=registry,
        )
        self.schedule = parts.labels("schedule")
        self.encode = parts.labels("encode")
        self.send = parts.labels("send")
        self.deliver = parts.labels("deliver")
        self.wait = parts.labels("wait")
        self.decode = parts.labels("decode")
        self.update = parts.labels("update")
        self._execute = parts.labels("execute")
        self.requests = RequestTimes(registry)

    def observe_worker(self, timings: step_pb2.StepTimings) -> None:
        """Take what a result says of its step."""
        self._execute.observe(step_ns(timings) / 1e9)


class RequestTimes:
    """Where the time of a request goes, observed when its last output ends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        parts = Histogram(
            "octavo_scheduler_request_seconds",
            "Time of each part of a request: queue (until it is first computed),"
            " prefill (until its first token), decode (until its last).",
            ("part",),
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._queue = parts.labels("queue")
        self._prefill = parts.labels("prefill")
        self._decode = parts.labels("decode")

    def observe(self, outputs: Iterable[scheduling_pb2.StepOutputs]) -> None:
        """Take the requests that have ended; one without a token spent its time in the queue."""
        for each in outputs:
            for finished in each.finished:
                if finished.HasField("usage"):
                    self._observe(finished.usage)

    def _observe(self, usage: common_pb2.Usage) -> None:
        self._queue.observe(usage.queue_ns / 1e9)
        if usage.first_token_ns:
            prefill_ns = usage.first_token_ns - usage.queue_ns
            self._prefill.observe(prefill_ns / 1e9)
            decode_ns = usage.total_ns - usage.first_token_ns
            self._decode.observe(decode_ns / 1e9)


class SchedulerCollector(Collector):
    """Reads the scheduler's own counters when Prometheus asks; a step pays nothing for them."""

    def __init__(self, scheduler: Scheduler, *, has_vllm_names: bool = False) -> None:
        """`has_vllm_names`: show three gauges also by the names that vLLM's dashboards read."""
        self._scheduler = scheduler
        self._has_vllm_names = has_vllm_names

    def collect(self) -> Iterator[Metric]:
        stats, load = self._scheduler.stats, self._scheduler.load()
        for field, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"octavo_scheduler_{name}", text, value=getattr(stats, field))
        finished = CounterMetricFamily(
            "octavo_scheduler_finished_outputs", "Outputs that ended.", labels=("reason",)
        )
        for number, count in list(stats.num_finished.items()):
            reason = common_pb2.FinishReason.Name(number).removeprefix("FINISH_REASON_").lower()
            finished.add_metric((reason,), count)
        yield finished
        for name, text, value in (
            ("running", "Outputs that have a row.", load.num_running),
            ("waiting", "Outputs that wait for one.", load.num_waiting),
            ("blocks", "KV blocks.", load.num_blocks),
            ("free_blocks", "KV blocks that no output holds.", load.num_free_blocks),
        ):
            yield GaugeMetricFamily(f"octavo_scheduler_{name}", text, value=value)
        if self._has_vllm_names:
            yield from _vllm_gauges(load)


def _vllm_gauges(load: scheduling_pb2.Load) -> Iterator[Metric]:
    used_share = 1 - load.num_free_blocks / load.num_blocks
    for name, text, value in (
        ("num_requests_running", "Outputs that have a row.", load.num_running),
        ("num_requests_waiting", "Outputs that wait for one.", load.num_waiting),
        ("kv_cache_usage_perc", "Share of the KV blocks that outputs hold, 0 to 1.", used_share),
    ):
        yield GaugeMetricFamily(f"vllm:{name}", text, value=value)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The scheduler at one moment, for the status line."""

    time_s: float
    num_steps: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_generated_tokens: int
    num_running: int
    num_waiting: int
    used_share: float
    """Of the KV blocks."""

    @classmethod
    def of(cls, scheduler: Scheduler, time_s: float) -> "Snapshot":
        stats, load = scheduler.stats, scheduler.load()
        return cls(
            time_s=time_s,
            num_steps=stats.num_steps,
            num_prompt_tokens=stats.num_prompt_tokens,
            num_cached_tokens=stats.num_cached_tokens,
            num_generated_tokens=stats.num_generated_tokens,
            num_running=load.num_running,
            num_waiting=load.num_waiting,
            used_share=1 - load.num_free_blocks / load.num_blocks,
        )


def status_line(before: Snapshot, now: Snapshot) -> str | None:
    """Return what happened between two moments in a line for people; None: nothing did."""
    if now.num_steps == before.num_steps:
        return None
    seconds = now.time_s - before.time_s
    num_prompt = now.num_prompt_tokens - before.num_prompt_tokens
    num_cached = now.num_cached_tokens - before.num_cached_tokens
    num_generated = now.num_generated_tokens - before.num_generated_tokens
    return (
        f"throughput {num_generated / seconds:.1f} tok/s (prompt {num_prompt / seconds:.1f})"
        f" · running {now.num_running} · waiting {now.num_waiting}"
        f" · KV {now.used_share:.1%} · prefix hits {num_cached / max(num_prompt, 1):.1%}"
    ).replace("%", " %")


async def log_status(scheduler: Scheduler) -> None:
    """Log the status line every ten seconds in which there was work, until cancelled."""
    log = structlog.get_logger()
    before = Snapshot.of(scheduler, time.monotonic())
    while True:
        await asyncio.sleep(_STATUS_PERIOD_S)
        now = Snapshot.of(scheduler, time.monotonic())
        if (line := status_line(before, now)) is not None:
            log.info(line)
        before = now
