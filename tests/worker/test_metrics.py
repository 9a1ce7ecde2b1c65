"""What the worker tells Prometheus."""

import pytest

from octavo.v1 import step_pb2
from octavo.worker.metrics import WorkerMetrics


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"octavo_worker_{name}", labels)


def test_a_step_is_counted_and_timed_by_parts() -> None:
    metrics = WorkerMetrics(step_pb2.WorkerReady())
    plan = step_pb2.StepPlan(row=[4, 7], num_new_tokens=[30, 1])
    timings = step_pb2.StepTimings(forward_ns=20_000_000, sample_ns=1_000_000)
    metrics.observe(plan, step_pb2.StepResult(token_ids=[9], timings=timings))
    assert value(metrics, "step_seconds_sum", part="forward") == pytest.approx(0.02)
    assert value(metrics, "step_seconds_sum", part="sample") == pytest.approx(0.001)
    assert value(metrics, "step_rows_sum") == 2
    assert value(metrics, "step_tokens_sum") == 31
    assert value(metrics, "step_tokens_bucket", le="32.0") == 1
    assert value(metrics, "sampled_tokens_total") == 1


def test_a_scrape_shows_what_the_worker_holds() -> None:
    ready = step_pb2.WorkerReady(
        device="cpu (2 threads)",
        dtype="bfloat16",
        num_rows=256,
        kv_groups=[step_pb2.KVGroup(num_blocks=100), step_pb2.KVGroup(num_blocks=28)],
        memory=step_pb2.MemoryLedger(weights_bytes=7, kv_cache_bytes=5, activations_bytes=3),
    )
    metrics = WorkerMetrics(ready)
    assert value(metrics, "info", device="cpu (2 threads)", dtype="bfloat16") == 1
    assert value(metrics, "memory_bytes", use="weights") == 7
    assert value(metrics, "memory_bytes", use="kv_cache") == 5
    assert value(metrics, "memory_bytes", use="activations") == 3
    assert value(metrics, "rows") == 256
    assert value(metrics, "kv_blocks") == 128
