"""What the operator is told: the status line, and what Prometheus scrapes."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.metrics import (
    SchedulerCollector,
    Snapshot,
    StepTimes,
    status_line,
)
from octavo.scheduler.scheduler import Scheduler
from octavo.scheduler.step_cost import step_ns
from octavo.v1 import common_pb2, scheduling_pb2, step_pb2

IDLE = Snapshot(
    time_s=100.0,
    num_steps=5,
    num_prompt_tokens=1000,
    num_cached_tokens=0,
    num_generated_tokens=200,
    num_running=0,
    num_waiting=0,
    used_share=0.0,
)


def test_the_status_line_says_what_happened_since_the_last() -> None:
    busy = Snapshot(
        time_s=110.0,
        num_steps=50,
        num_prompt_tokens=2200,
        num_cached_tokens=757,
        num_generated_tokens=4323,
        num_running=32,
        num_waiting=4,
        used_share=0.125,
    )
    assert status_line(IDLE, busy) == (
        "throughput 412.3 tok/s (prompt 120.0) · running 32 · waiting 4 · KV 12.5 %"
        " · prefix hits 63.1 %"
    )


def test_there_is_no_status_line_where_nothing_happened() -> None:
    assert status_line(IDLE, IDLE) is None


@pytest.fixture
def scheduler() -> Scheduler:
    """A scheduler with one request that waits and one that was aborted."""
    scheduler = Scheduler(
        SchedulerConfig(
            epoch=1,
            block_size=4,
            kv_groups=(GroupConfig(num_blocks=8),),
            max_model_len=16,
            max_num_seqs=2,
            max_num_batched_tokens=8,
        )
    )
    for key in (b"a" * 16, b"b" * 16):
        scheduler.submit(
            scheduling_pb2.SubmitRequest(
                request_key=key, router_id=b"r", prompt_token_ids=[1], n=1, seeds=[0], max_tokens=2
            ),
            now_ns=0,
        )
    scheduler.abort(scheduling_pb2.Abort(request_key=b"a" * 16), now_ns=0)
    return scheduler


def test_the_schedulers_counters_are_what_prometheus_reads(scheduler: Scheduler) -> None:
    registry = CollectorRegistry()
    registry.register(SchedulerCollector(scheduler))
    StepTimes(registry).wait.observe(0.002)
    text = generate_latest(registry).decode()
    for line in (
        "octavo_scheduler_requests_total 2.0",
        'octavo_scheduler_finished_outputs_total{reason="abort"} 1.0',
        "octavo_scheduler_waiting 1.0",
        "octavo_scheduler_blocks 8.0",
        "octavo_scheduler_free_blocks 8.0",
        'octavo_scheduler_step_seconds_count{part="wait"} 1.0',
    ):
        assert line in text.splitlines()


def test_every_reason_has_a_name(scheduler: Scheduler) -> None:
    for number in common_pb2.FinishReason.values():
        scheduler.stats.num_finished[number] += 1
    registry = CollectorRegistry()
    registry.register(SchedulerCollector(scheduler))
    text = generate_latest(registry).decode()
    assert text.count("octavo_scheduler_finished_outputs_total{") == len(
        common_pb2.FinishReason.values()
    )


def test_a_request_that_ended_says_where_its_time_went() -> None:
    registry = CollectorRegistry()
    usage = common_pb2.Usage(
        queue_ns=1_000_000_000, first_token_ns=1_500_000_000, total_ns=4_000_000_000
    )
    ended = scheduling_pb2.OutputFinished(usage=usage)
    unstarted = scheduling_pb2.OutputFinished(usage=common_pb2.Usage(queue_ns=2_000_000_000))
    not_the_last = scheduling_pb2.OutputFinished()
    outputs = scheduling_pb2.StepOutputs(finished=[not_the_last, ended, unstarted])
    StepTimes(registry).requests.observe([outputs])
    name = "octavo_scheduler_request_seconds"
    sums = {
        part: (
            registry.get_sample_value(f"{name}_count", {"part": part}),
            registry.get_sample_value(f"{name}_sum", {"part": part}),
        )
        for part in ("queue", "prefill", "decode")
    }
    assert sums == {"queue": (2, 3.0), "prefill": (1, 0.5), "decode": (1, 2.5)}


def test_the_worker_says_how_long_a_step_took() -> None:
    registry = CollectorRegistry()
    timings = step_pb2.StepTimings(stage_ns=500_000, forward_ns=20_000_000, sample_ns=1_000_000)
    StepTimes(registry).observe_worker(timings)
    name = "octavo_scheduler_step_seconds_sum"
    assert registry.get_sample_value(name, {"part": "execute"}) == pytest.approx(0.0215)


def test_what_a_device_did_not_wait_for_makes_no_step_longer() -> None:
    timings = step_pb2.StepTimings(stage_ns=500, overlapped_ns=300, copy_ns=1, forward_ns=20)
    assert step_ns(timings) == 221


def test_gauges_have_vllms_names_where_they_are_asked_for(scheduler: Scheduler) -> None:
    plain, aliased = CollectorRegistry(), CollectorRegistry()
    plain.register(SchedulerCollector(scheduler))
    aliased.register(SchedulerCollector(scheduler, has_vllm_names=True))
    assert "vllm:" not in generate_latest(plain).decode()
    assert aliased.get_sample_value("vllm:num_requests_waiting") == 1
    assert aliased.get_sample_value("vllm:num_requests_running") == 0
    assert aliased.get_sample_value("vllm:kv_cache_usage_perc") == 0
