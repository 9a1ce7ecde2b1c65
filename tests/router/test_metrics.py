"""What the router tells Prometheus."""

import socket
from urllib.request import urlopen

import pytest

from octavo.router.metrics import RouterMetrics
from octavo.router.open_requests import OpenRequests
from octavo.startup import StartupError
from octavo.v1 import common_pb2


def test_a_scrape_shows_calls_tokens_and_open_requests() -> None:
    open_requests = OpenRequests()
    metrics = RouterMetrics(open_requests)
    metrics.count_call("Chat", "OK")
    metrics.count_usage(
        common_pb2.Usage(num_prompt_tokens=9, num_cached_tokens=4, num_output_tokens=2)
    )
    with metrics.serve(0) as server, open_requests.admitted():
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            text = answer.read().decode()
        server.shutdown()
    assert 'octavo_router_calls_total{code="OK",method="Chat"} 1.0' in text
    assert 'octavo_router_tokens_total{kind="prompt"} 9.0' in text
    assert 'octavo_router_tokens_total{kind="cached"} 4.0' in text
    assert 'octavo_router_tokens_total{kind="output"} 2.0' in text
    assert "octavo_router_open_requests 1.0" in text
    assert metrics.value("octavo_router_open_requests") == 0


def test_requests_are_timed_as_the_scheduler_says() -> None:
    metrics = RouterMetrics(OpenRequests())
    metrics.count_usage(common_pb2.Usage(first_token_ns=250_000_000, total_ns=2_000_000_000))
    metrics.count_usage(common_pb2.Usage(total_ns=1_000_000_000))
    assert metrics.value("octavo_router_time_to_first_token_seconds_sum") == 0.25
    assert metrics.value("octavo_router_time_to_first_token_seconds_count") == 1
    assert metrics.value("octavo_router_request_duration_seconds_sum") == 3
    assert metrics.value("octavo_router_request_duration_seconds_count") == 2


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"--metrics-port {port}: .*; choose another port"):
            RouterMetrics(OpenRequests()).serve(port)
