"""What the gateway counts and times, for Prometheus. Labels come from fixed sets only."""

import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram, generate_latest

from octavo.metrics_server import process_registry

_METHODS = frozenset({"GET", "HEAD", "POST"})
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class GatewayMetrics:
    """The metrics of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = process_registry()
        self._requests = Counter(
            "octavo_gateway_http_requests",
            "HTTP requests answered; status 499: the client left.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "octavo_gateway_http_requests_in_flight",
            "HTTP requests being answered.",
            registry=self.registry,
        )
        self.received_bytes = Counter(
            "octavo_gateway_http_received_bytes",
            "Bytes of request bodies.",
            registry=self.registry,
        )
        self.sent_bytes = Counter(
            "octavo_gateway_http_sent_bytes",
            "Bytes of response bodies.",
            registry=self.registry,
        )
        self._duration = Histogram(
            "octavo_gateway_http_request_duration_seconds",
            "From the headers of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._first_text = Histogram(
            "octavo_gateway_first_text_seconds",
            "From the headers of a streamed request to its first text.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is the template, such as /v1/models/{model_id}."""
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._duration.labels(route).observe(seconds)

    def first_text_timer(self, route: str, since: float) -> Callable[[], None]:
        """Return what to call at the first text of a stream asked for at monotonic `since`."""
        histogram = self._first_text.labels(route)
        return lambda: histogram.observe(time.monotonic() - since)

    def to_text(self) -> bytes:
        return generate_latest(self.registry)
