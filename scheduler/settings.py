"""The settings of a scheduler process."""

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Parameter

from octavo.flag_types import Count, PortOrZero, Seconds
from octavo.transport import TransportSettings

SchedulingPolicy = Literal["fcfs", "priority"]

# A large model on a small machine takes a minute for a step of 512 tokens.
STEP_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class SchedulerSettings(TransportSettings):
    """Flags of `octavo scheduler`."""

    listen: str
    """gRPC address for the routers: unix:/path, or host:port of a private interface."""
    worker_endpoint: str
    """ZeroMQ address for the workers: ipc:///path in a private directory, or tcp://address:port."""
    served_model_name: Annotated[tuple[str, ...], Parameter(consume_multiple=True)]
    """Names the model is served under; the first is the one in answers."""
    max_model_len: Count | None = None
    """Most tokens of prompt and output together; unset: what the workers can hold."""
    max_num_seqs: Count = 256
    """Most outputs that run at once."""
    max_num_batched_tokens: Count | None = None
    """Most tokens of one step; unset: what the workers have memory for."""
    scheduling_policy: SchedulingPolicy = "fcfs"
    """Order of waiting requests: as they came, or by their priority first."""
    enable_prefix_caching: bool = True
    """Reuse the KV of prompts that begin alike."""
    async_scheduling: bool = True
    """Plan each step while the one before it runs."""
    max_num_queued_requests: Count = 1024
    """Requests that may wait; more are refused with RESOURCE_EXHAUSTED."""
    step_timeout_s: Seconds = STEP_TIMEOUT_S
    """Seconds in one phase of a step after which a worker counts as hung, and is replaced."""
    drain_timeout_s: Seconds = 30.0
    """Seconds that running requests have to finish after SIGTERM."""
    metrics_host: str = "127.0.0.1"
    """Address that metrics are served on, to everyone who reaches it."""
    metrics_port: PortOrZero = 0
    """Port that Prometheus finds metrics on; 0: none."""
    vllm_metric_names: bool = False
    """Show the gauges running, waiting and KV usage also by the names that vLLM gives them."""
