"""What Prometheus scrapes of a running cluster: the four processes, and all that dashboards ask."""

import re
import time
from collections.abc import Iterable

import httpx
import pytest

from tests.end_to_end.cluster import Cluster
from tests.octavo.test_deploy_metrics import SELECTOR, expressions

pytestmark = pytest.mark.slow

NUM_TOKENS = 8
OBSERVED_TIMEOUT_S = 30


def scrape(cluster: Cluster) -> dict[str, dict[str, float]]:
    """Return each process's samples by name, summed over their labels."""
    first = cluster.metrics_port
    ports = {"gateway": cluster.port, "scheduler": first, "router": first + 1, "worker": first + 2}
    scraped: dict[str, dict[str, float]] = {}
    for process, port in ports.items():
        samples = scraped[process] = {}
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
            samples[name] = samples.get(name, 0) + float(value)
    return scraped


def test_a_streamed_request_is_seen_by_every_process(cluster: Cluster) -> None:
    # So that every counter is there before the one that is looked at.
    complete(cluster)
    cluster.wait_until_idle()
    before = scrape(cluster)
    complete(cluster)
    expected = {
        ("gateway", "octavo_gateway_first_text_seconds_count"): 1,
        ("router", "octavo_router_time_to_first_token_seconds_count"): 1,
        ("router", "octavo_router_inter_token_latency_seconds_count"): NUM_TOKENS - 1,
        ("router", "octavo_router_request_output_tokens_sum"): NUM_TOKENS,
        ("scheduler", "octavo_scheduler_generated_tokens_total"): NUM_TOKENS,
        ("worker", "octavo_worker_sampled_tokens_total"): NUM_TOKENS,
    }
    # An answer may be read before its end has been observed.
    deadline = time.monotonic() + OBSERVED_TIMEOUT_S
    while (seen := moved(before, scrape(cluster), expected)) != expected:
        assert time.monotonic() < deadline, seen


def moved(
    before: dict[str, dict[str, float]],
    after: dict[str, dict[str, float]],
    places: Iterable[tuple[str, str]],
) -> dict[tuple[str, str], float]:
    """Return by how much each process's metric has grown."""
    return {
        (process, name): after[process][name] - before[process][name] for process, name in places
    }


def test_all_that_dashboard_and_alerts_ask_for_is_scraped(cluster: Cluster) -> None:
    complete(cluster)
    scraped = {name for samples in scrape(cluster).values() for name in samples}
    asked = {name for _, expression, _ in expressions() for name, _ in SELECTOR.findall(expression)}
    assert asked - scraped == {"up"}


def complete(cluster: Cluster) -> None:
    """Stream a completion to its end."""
    body = {
        "model": cluster.model,
        "prompt": "One, two, three,",
        "max_tokens": NUM_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    answer = httpx.post(f"{cluster.base_url}/v1/completions", json=body, timeout=60)
    assert answer.text.rstrip().endswith("[DONE]")
