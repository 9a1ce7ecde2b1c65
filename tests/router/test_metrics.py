"""What the router tells Prometheus."""

import pytest

from octavo.router.metrics import RouterMetrics
from octavo.router.open_requests import OpenRequests
from octavo.v1 import common_pb2, inference_pb2


def delta(num_tokens: int, output_index: int = 0) -> inference_pb2.StreamEvent:
    return inference_pb2.StreamEvent(
        delta=inference_pb2.Delta(output_index=output_index, num_tokens=num_tokens, text="x")
    )


@pytest.fixture
def metrics() -> RouterMetrics:
    return RouterMetrics(OpenRequests())


def value(metrics: RouterMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"octavo_router_{name}", labels)


def test_calls_and_open_requests_are_counted() -> None:
    open_requests = OpenRequests()
    metrics = RouterMetrics(open_requests)
    metrics.count_call("Chat", "OK")
    assert value(metrics, "calls_total", method="Chat", code="OK") == 1
    with open_requests.admitted():
        assert value(metrics, "open_requests") == 1
    assert value(metrics, "open_requests") == 0


def test_the_times_of_a_stream_are_those_its_client_sees(metrics: RouterMetrics) -> None:
    stream = metrics.stream("m", arrived_s=100)
    stream.observe(delta(1), 100.5)
    stream.observe(delta(1), 101.5)
    # Four tokens in one message: four gaps of half a second.
    stream.observe(delta(4), 103.5)
    # Text that was held back is no token.
    stream.observe(delta(0), 104.5)
    stream.observe(inference_pb2.StreamEvent(finished=inference_pb2.Finished()), 104.5)
    stream.observe(inference_pb2.StreamEvent(usage=common_pb2.Usage()), 105)
    for name, count, total in (
        ("time_to_first_token_seconds", 1, 0.5),
        ("inter_token_latency_seconds", 5, 3.0),
        ("request_duration_seconds", 1, 5.0),
    ):
        assert value(metrics, f"{name}_count", model="m") == count, name
        assert value(metrics, f"{name}_sum", model="m") == total, name
    assert value(metrics, "inter_token_latency_seconds_bucket", model="m", le="0.5") == 4


def test_outputs_of_one_request_have_gaps_of_their_own(metrics: RouterMetrics) -> None:
    stream = metrics.stream("m", arrived_s=0)
    for output_index, now_s in ((0, 1.0), (1, 1.25), (0, 3.0), (1, 3.25)):
        stream.observe(delta(1, output_index), now_s)
    assert value(metrics, "time_to_first_token_seconds_count", model="m") == 1
    assert value(metrics, "inter_token_latency_seconds_count", model="m") == 2
    assert value(metrics, "inter_token_latency_seconds_sum", model="m") == 4.0


def test_the_tokens_of_finished_requests_are_counted_by_model(metrics: RouterMetrics) -> None:
    usage = common_pb2.Usage(num_prompt_tokens=9, num_cached_tokens=4, num_output_tokens=2)
    metrics.stream("a", 0).observe(inference_pb2.StreamEvent(usage=usage), 1)
    metrics.stream("b", 0).observe(inference_pb2.StreamEvent(usage=usage), 1)
    for kind, count in (("prompt", 9), ("cached", 4), ("output", 2)):
        assert value(metrics, "tokens_total", model="a", kind=kind) == count
    assert value(metrics, "request_prompt_tokens_sum", model="b") == 9
    assert value(metrics, "request_output_tokens_bucket", model="b", le="2.0") == 1
    assert value(metrics, "request_output_tokens_bucket", model="b", le="1.0") == 0
