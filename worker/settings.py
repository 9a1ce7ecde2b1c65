"""The settings of a worker process."""

from dataclasses import dataclass
from typing import Literal

from octavo.flag_types import Bytes, Count, Index, PortOrZero, Seconds, Share
from octavo.transport import TransportSettings

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DeviceName = Literal["auto", "cpu", "cuda"]
KvCacheDtype = Literal["auto", "fp8", "int8"]
LoadFormat = Literal["auto", "safetensors", "gguf", "dummy"]
Quantization = Literal["fp8", "int8", "int4", "gguf"]


@dataclass(frozen=True, kw_only=True)
class WorkerSettings(TransportSettings):
    """Flags of `octavo worker`."""

    model: str = ""
    """Path of the model, or name of one fetched before. With --mock only told to the routers."""
    scheduler_endpoint: str
    """ZeroMQ address of the scheduler: ipc:///path, or tcp://host:port with keys."""
    rank: Index = 0
    """Which device of the group this worker is."""
    device: DeviceName = "auto"
    """What runs the model; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """Type of weights and activations; auto chooses what this machine computes fast."""
    quantization: Quantization | None = None
    """Weights in few bits: int8; on a GPU fp8; on a CPU int4, or gguf: as the file has them."""
    load_format: LoadFormat = "auto"
    """How the weights are stored; dummy draws random ones and needs config.json only."""
    block_size: Count = 16
    """Tokens in a KV block."""
    max_model_len: Count | None = None
    """Most tokens of prompt and output together; unset: what the model was trained for."""
    max_num_seqs: Count = 256
    """Most outputs that run at once."""
    max_num_batched_tokens: Count | None = None
    """Most tokens of one step; unset: 512 on a CPU, 8,192 on a GPU."""
    kv_cache_dtype: KvCacheDtype = "auto"
    """Type of the KV cache: on a GPU fp8, on a CPU int8 take half the memory; auto is the dtype."""
    kv_cache_memory_bytes: Bytes | None = None
    """Memory for the KV cache; unset: what the share of a GPU leaves, 4 GiB at most on a CPU."""
    gpu_memory_utilization: Share = 0.9
    """Share of a GPU's memory that the worker may take, the KV cache included."""
    num_gpu_blocks_override: Count | None = None
    """Number of KV blocks, whatever the memory allows."""
    enforce_eager: bool = False
    """On a GPU, launch every operation anew instead of replaying recorded graphs."""
    cpu_threads: Count | None = None
    """Threads that compute; unset: one for each core."""
    seed: int = 0
    """Seed of --load-format dummy."""
    metrics_host: str = "127.0.0.1"
    """Address that metrics are served on, to everyone who reaches it."""
    metrics_port: PortOrZero = 0
    """Port that Prometheus finds metrics on; 0: none."""
    mock: bool = False
    """Speak the whole protocol without a model: tokens come from a hash of what precedes them."""
    mock_step_s: Seconds = 0.0
    """Seconds that a step of the mock takes, on a device beside the CPU."""
    mock_vocab_size: Count = 49_152
    """Token ids of the mock are below this; as many as the demo model has."""
    mock_eos_token_id: Index = 2
    """End-of-sequence token of the mock."""
    mock_end_rate: Share = 0.0
    """Share of the mock's tokens that are the end-of-sequence token, in [0, 1]."""
