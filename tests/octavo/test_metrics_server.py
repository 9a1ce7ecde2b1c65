"""octavo.metrics_server: what Prometheus scrapes."""

import os
import socket
from urllib.request import urlopen

import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter

from octavo.metrics_server import process_registry, serve_metrics
from octavo.startup import StartupError
from tests.end_to_end.cluster import free_port


def test_a_scrape_shows_the_registry() -> None:
    registry = CollectorRegistry()
    Counter("octavo_pages", "Pages folded.", registry=registry).inc(16)
    port = free_port()
    with serve_metrics(registry, "127.0.0.1", port) as server:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        server.shutdown()
    assert "octavo_pages_total 16.0" in lines
    assert not any("_created" in line for line in lines)


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"--metrics-port {port} of 127.0.0.1: .*; choose another port"
        with pytest.raises(StartupError, match=message):
            serve_metrics(CollectorRegistry(), "127.0.0.1", port)


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(StartupError, match="--metrics-port 65536 .*: ports are 1 to 65535;"):
        serve_metrics(CollectorRegistry(), "127.0.0.1", 65_536)


def test_every_process_tells_its_memory() -> None:
    shown = process_registry().get_sample_value("process_resident_memory_bytes")
    assert shown == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.2)
