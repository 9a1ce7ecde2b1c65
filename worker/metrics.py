"""What the worker counts and times, for Prometheus."""

from prometheus_client import Counter, Gauge

from octavo.histogram import Histogram
from octavo.metrics_server import process_registry
from octavo.v1 import step_pb2

_STEP_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_POWERS_OF_TWO = tuple(2**power for power in range(15))

# Parts of a step that its result tells.
_RUNNER_PARTS = ("stage", "copy", "forward", "sample")


class WorkerMetrics:
    """The worker's metrics, in a registry of their own. Observed when a step's result has left."""

    def __init__(self, ready: step_pb2.WorkerReady) -> None:
        """`ready` is what the runner says of itself."""
        self.registry = process_registry()
        parts = Histogram(
            "octavo_worker_step_seconds",
            "Time of each part of a step: wait (for its plan, idle time included), stage (the"
            " plan's changes to the rows), copy (blocks), forward, sample, send (the result).",
            ("part",),
            buckets=_STEP_S,
            registry=self.registry,
        )
        self.wait = parts.labels("wait")
        self.send = parts.labels("send")
        self._runner_parts = [(f"{part}_ns", parts.labels(part)) for part in _RUNNER_PARTS]
        self._rows = self._histogram("step_rows", "Rows computed in a step.")
        self._tokens = self._histogram("step_tokens", "Tokens run through the model in a step.")
        self._sampled_tokens = Counter(
            "octavo_worker_sampled_tokens", "Tokens sampled.", registry=self.registry
        )
        self.refused_plans = Counter(
            "octavo_worker_refused_plans",
            "Plans that break the contract; nothing of them was done.",
            registry=self.registry,
        )
        self._describe(ready)

    def observe(self, plan: step_pb2.StepPlan, result: step_pb2.StepResult) -> None:
        """Take a step that was run."""
        for field, part in self._runner_parts:
            part.observe(getattr(result.timings, field) / 1e9)
        self._rows.labels().observe(len(plan.row))
        self._tokens.labels().observe(sum(plan.num_new_tokens))
        self._sampled_tokens.inc(len(result.token_ids))

    def _histogram(self, name: str, text: str) -> Histogram:
        name = f"octavo_worker_{name}"
        return Histogram(name, text, (), buckets=_POWERS_OF_TWO, registry=self.registry)

    def _describe(self, ready: step_pb2.WorkerReady) -> None:
        """Show what the worker is and holds, which never changes."""
        info = Gauge(
            "octavo_worker_info",
            "1; the labels say what the worker runs on.",
            ("device", "dtype"),
            registry=self.registry,
        )
        info.labels(ready.device, ready.dtype).set(1)
        memory = Gauge(
            "octavo_worker_memory_bytes",
            "Memory set aside, by use: weights, kv_cache, activations (of the largest step), graphs"
            " (of CUDA).",
            ("use",),
            registry=self.registry,
        )
        memory.labels("weights").set(ready.memory.weights_bytes)
        memory.labels("kv_cache").set(ready.memory.kv_cache_bytes)
        memory.labels("activations").set(ready.memory.activations_bytes)
        memory.labels("graphs").set(ready.memory.graphs_bytes)
        for name, text, value in (
            ("rows", "Rows there are: outputs that can run at once.", ready.num_rows),
            ("kv_blocks", "KV blocks.", sum(group.num_blocks for group in ready.kv_groups)),
        ):
            Gauge(f"octavo_worker_{name}", text, registry=self.registry).set(value)
