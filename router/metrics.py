"""What the router counts and times, for Prometheus. Times are what clients see of a stream."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from octavo.histogram import Histogram
from octavo.metrics_server import process_registry
from octavo.v1 import inference_pb2

from .open_requests import OpenRequests

_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_INTER_TOKEN_S = (1e-3, 2.5e-3, 5e-3, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5, 10, 60)
_REQUEST_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_TOKENS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))


class RouterMetrics:
    """The router's metrics, in a registry of their own."""

    def __init__(self, open_requests: OpenRequests) -> None:
        self.registry = process_registry()
        self._calls = Counter(
            "octavo_router_calls",
            "Calls that ended, by method and gRPC status code.",
            ("method", "code"),
            registry=self.registry,
        )
        self._streams = StreamHistograms(self.registry)
        self._tokens = Counter(
            "octavo_router_tokens",
            "Tokens of finished requests: prompt, cached (part of prompt) and output.",
            ("model", "kind"),
            registry=self.registry,
        )
        Gauge(
            "octavo_router_open_requests", "Requests being served.", registry=self.registry
        ).set_function(lambda: open_requests.count)

    def count_call(self, method: str, code: str) -> None:
        self._calls.labels(method, code).inc()

    def stream(self, model: str, arrived_s: float) -> "StreamMetrics":
        """Return what observes a stream whose call came in at monotonic `arrived_s`.

        Args:
            model: the first of its names, whatever the client called it.
        """
        return StreamMetrics(model, arrived_s, self._streams, self._tokens)


class StreamHistograms:
    """How long streams take and how long they are, by model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            name = f"octavo_router_{name}"
            return Histogram(name, text, ("model",), buckets=buckets, registry=registry)

        self.first_token = histogram(
            "time_to_first_token_seconds",
            "From the arrival of a request to its first token.",
            _FIRST_TOKEN_S,
        )
        self.inter_token = histogram(
            "inter_token_latency_seconds",
            "From one token of an output to the next; tokens sent in one message share its time.",
            _INTER_TOKEN_S,
        )
        self.request = histogram(
            "request_duration_seconds",
            "From the arrival of a request to the end of its last output.",
            _REQUEST_S,
        )
        self.prompt_tokens = histogram(
            "request_prompt_tokens", "Tokens of the prompt of a finished request.", _TOKENS
        )
        self.output_tokens = histogram(
            "request_output_tokens", "Tokens of all outputs of a finished request.", _TOKENS
        )


class StreamMetrics:
    """Observes the events of one stream as they go out."""

    def __init__(
        self, model: str, arrived_s: float, histograms: StreamHistograms, tokens: Counter
    ) -> None:
        self._model = model
        self._arrived_s = arrived_s
        self._histograms = histograms
        self._inter_token = histograms.inter_token.labels(model)
        self._tokens = tokens
        self._last_token_s: dict[int, float] = {}
        """Output → when its last token went out."""

    def observe(self, event: inference_pb2.StreamEvent, now_s: float) -> None:
        """Take an event that goes out at monotonic `now_s`."""
        if event.HasField("delta"):
            if event.delta.num_tokens:
                self.observe_tokens(event.delta.output_index, event.delta.num_tokens, now_s)
        elif event.HasField("usage"):
            self._observe_end(event, now_s)

    def observe_tokens(self, output_index: int, num_tokens: int, now_s: float) -> None:
        """Take tokens of an output, at least one, that go out at monotonic `now_s`."""
        last_s = self._last_token_s.get(output_index)
        if last_s is not None:
            self._inter_token.observe((now_s - last_s) / num_tokens, num_tokens)
        elif not self._last_token_s:
            self._histograms.first_token.labels(self._model).observe(now_s - self._arrived_s)
        self._last_token_s[output_index] = now_s

    def _observe_end(self, event: inference_pb2.StreamEvent, now_s: float) -> None:
        usage, model = event.usage, self._model
        self._histograms.request.labels(model).observe(now_s - self._arrived_s)
        self._histograms.prompt_tokens.labels(model).observe(usage.num_prompt_tokens)
        self._histograms.output_tokens.labels(model).observe(usage.num_output_tokens)
        self._tokens.labels(model, "prompt").inc(usage.num_prompt_tokens)
        self._tokens.labels(model, "cached").inc(usage.num_cached_tokens)
        self._tokens.labels(model, "output").inc(usage.num_output_tokens)
