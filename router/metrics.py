"""What the router counts and times, for Prometheus."""

from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

from octavo.startup import StartupError
from octavo.v1 import common_pb2

from .open_requests import OpenRequests

# Half as many samples again, which no dashboard reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

_LOOPBACK = "127.0.0.1"
_FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_REQUEST_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class RouterMetrics:
    """The router's metrics, in a registry of their own."""

    def __init__(self, open_requests: OpenRequests) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "octavo_router_calls",
            "Calls that ended, by method and gRPC status code.",
            ("method", "code"),
            registry=self._registry,
        )
        tokens = Counter(
            "octavo_router_tokens",
            "Tokens of finished requests: prompt, cached (part of prompt) and output.",
            ("kind",),
            registry=self._registry,
        )
        self._prompt_tokens = tokens.labels("prompt")
        self._cached_tokens = tokens.labels("cached")
        self._output_tokens = tokens.labels("output")
        self._first_token = self._histogram(
            "time_to_first_token", "From a request's submission to its first token.", _FIRST_TOKEN_S
        )
        self._request = self._histogram(
            "request_duration", "From a request's submission to its last token.", _REQUEST_S
        )
        Gauge(
            "octavo_router_open_requests", "Requests being served.", registry=self._registry
        ).set_function(lambda: open_requests.count)

    def count_call(self, method: str, code: str) -> None:
        self._calls.labels(method, code).inc()

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        name = f"octavo_router_{name}_seconds"
        return Histogram(name, text, buckets=buckets, registry=self._registry)

    def count_usage(self, usage: common_pb2.Usage) -> None:
        self._prompt_tokens.inc(usage.num_prompt_tokens)
        self._cached_tokens.inc(usage.num_cached_tokens)
        self._output_tokens.inc(usage.num_output_tokens)
        self._request.observe(usage.total_ns / 1e9)
        if usage.first_token_ns:
            self._first_token.observe(usage.first_token_ns / 1e9)

    def value(self, name: str, **labels: str) -> float | None:
        """Return one value as a scrape would show it; None if it is not there."""
        return self._registry.get_sample_value(name, labels)

    def serve(self, port: int) -> WSGIServer:
        """Answer scrapes over HTTP on the loopback interface, from a thread."""
        try:
            server, _ = start_http_server(port, addr=_LOOPBACK, registry=self._registry)
        except OSError as error:
            raise StartupError(
                f"--metrics-port {port}: {error.strerror}; choose another port, or 0 for none"
            ) from error
        return server
