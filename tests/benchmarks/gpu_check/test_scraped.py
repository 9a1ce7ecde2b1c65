"""benchmarks.gpu_check: what processes tell Prometheus becomes the costs of a step."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server

from benchmarks.gpu_check import scraped
from benchmarks.gpu_check.scraped import Scrape, step_costs
from benchmarks.octavo_server import free_ports
from octavo.histogram import Histogram


def test_costs_are_what_lies_between_two_moments() -> None:
    scheduler, worker = CollectorRegistry(), CollectorRegistry()
    steps = Counter("octavo_scheduler_steps", "", registry=scheduler)
    times = Histogram(
        "octavo_scheduler_step_seconds", "", ("part",), buckets=(1.0,), registry=scheduler
    )
    device = Histogram("octavo_worker_step_seconds", "", ("part",), buckets=(1.0,), registry=worker)
    cpu = Counter("process_cpu_seconds", "", registry=worker)
    times.labels("encode").observe(100.0)
    device.labels("forward").observe(100.0)
    ports = dict(zip(("scheduler", "worker"), free_ports(2), strict=True))
    servers = [
        start_http_server(ports[name], addr="127.0.0.1", registry=registry)
        for name, registry in (("scheduler", scheduler), ("worker", worker))
    ]
    try:
        before = Scrape.of(ports)
        steps.inc(4)
        times.labels("encode").observe(2e-4)
        device.labels("forward").observe(6.0)
        device.labels("sample").observe(1.0)
        # Of no work of the device.
        device.labels("wait").observe(50.0)
        cpu.inc(0.002)
        after = Scrape.of(ports)
    finally:
        for server, thread in servers:
            server.shutdown()
            server.server_close()
            thread.join()
    costs = step_costs(Scrape(0.0, before.values), Scrape(10.0, after.values))
    assert costs["num_steps"] == 4 and costs["gpu_idle_percent"] == pytest.approx(30)
    assert costs["cpu_us_per_step"]["encode"] == pytest.approx(50)
    assert costs["cpu_us_per_step"]["worker"] == pytest.approx(500)
    assert costs["cpu_us_per_step"]["schedule"] == 0


def test_where_no_step_was_there_are_no_costs() -> None:
    assert step_costs(Scrape(0.0, {}), Scrape(1.0, {})) == {"num_steps": 0}


def test_a_process_is_quiet_when_it_hardly_takes_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ("worker", "process_cpu_seconds_total", "")
    # Seconds of CPU after each second: 0.9, 0.3, then 0.1.
    used_s = [5.0, 5.9, 6.2, 6.3, 6.3]
    scrapes = iter([Scrape(float(i), {key: value}) for i, value in enumerate(used_s)])
    monkeypatch.setattr(Scrape, "of", lambda _: next(scrapes))
    monkeypatch.setattr(scraped, "time", SimpleNamespace(sleep=lambda _: None))
    scraped.wait_until_quiet("worker", 1)
    assert next(scrapes).taken_s == 4.0
