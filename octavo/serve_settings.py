"""The settings of `octavo serve`: those of the processes that an operator sets for all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from .flag_types import ApiKeys, Bytes, Count, Port, Seconds, Share
from .settings import ProcessSettings


@dataclass(frozen=True, kw_only=True)
class ServeSettings(ProcessSettings):
    """Flags of `octavo serve`. None leaves the choice to the process that needs it."""

    host: str = "127.0.0.1"
    """Address that REST and gRPC are served on."""
    port: Port = 8000
    """Port of the REST API."""
    grpc_port: Port = 50051
    """Port of the gRPC API."""
    metrics_port: Annotated[int, Parameter(validator=Number(gte=0, lte=65533))] = 0
    """First of three loopback ports for Prometheus: scheduler, router and worker; 0: none."""
    vllm_metric_names: bool = False
    """Show the gauges running, waiting and KV usage also by the names that vLLM gives them."""
    api_key: ApiKeys = ()
    """Key that clients have to send, REST and gRPC; OCTAVO_API_KEY hides it from `ps`."""
    served_model_name: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ()
    """Names that clients call the model by, the first in answers; unset: MODEL as given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What runs the model; auto takes a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of weights and activations; auto chooses what this machine computes fast."""
    quantization: Literal["fp8", "int8", "int4", "gguf"] | None = None
    """Weights in few bits: int8; on a GPU fp8; on a CPU int4, or gguf: as the file has them."""
    load_format: Literal["auto", "safetensors", "gguf", "dummy"] = "auto"
    """How the weights are stored; dummy draws random ones and needs config.json only."""
    max_model_len: Count | None = None
    """Most tokens of prompt and output together; unset: what the model was trained for."""
    block_size: Count = 16
    """Tokens in a KV block."""
    max_num_seqs: Count = 256
    """Most outputs that run at once."""
    max_num_batched_tokens: Count | None = None
    """Most tokens of one step; unset: 512 on a CPU, 8,192 on a GPU."""
    kv_cache_dtype: Literal["auto", "fp8", "int8"] = "auto"
    """Type of the KV cache: on a GPU fp8, on a CPU int8 take half the memory; auto is the dtype."""
    kv_cache_memory_bytes: Bytes | None = None
    """Memory for the KV cache; unset: what the share of a GPU leaves, 4 GiB at most on a CPU."""
    gpu_memory_utilization: Share = 0.9
    """Share of a GPU's memory that the worker may take, the KV cache included."""
    num_gpu_blocks_override: Count | None = None
    """Number of KV blocks, whatever the memory allows."""
    enforce_eager: Annotated[bool, Parameter(negative=())] = False
    """On a GPU, launch every operation anew instead of replaying recorded graphs."""
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    """Who runs first: who came first, or whose priority is the lower number."""
    enable_prefix_caching: bool = True
    """Compute a prefix that requests have in common once."""
    async_scheduling: bool = True
    """Plan a step while the one before it still runs."""
    max_num_queued_requests: Count = 1024
    """Most requests that wait; further ones are refused."""
    chat_template: Path | None = None
    """File with a Jinja chat template; unset: the model's own."""
    generation_config: Literal["auto", "octavo"] = "auto"
    """Sampling where a request does not say: as the model's authors advise, or neutral."""
    seed: int = 0
    """Seed of --load-format dummy."""
    cpu_threads: Count | None = None
    """Threads that compute; unset: one for each core."""
    step_timeout_s: Seconds = 300.0
    """Seconds in one phase of a step after which a worker counts as hung, and is replaced."""
    drain_timeout_s: Seconds = 30.0
    """Seconds that running requests have to finish when the server is told to stop."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; unset: main."""
    offline: Annotated[bool, Parameter(negative=())] = False
    """Use what was fetched from the hub before, and no network."""
    mock: Annotated[bool, Parameter(show=False)] = False
    """For tests: a worker that speaks the whole protocol without a model."""
    dry_run: Annotated[bool, Parameter(negative=())] = False
    """Print the commands that would be started, and start nothing."""
