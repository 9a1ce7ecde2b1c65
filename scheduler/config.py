"""What the scheduler's decisions depend on, fixed for the life of the process."""

from dataclasses import dataclass
from typing import Literal

SchedulingPolicy = Literal["fcfs", "priority"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupConfig:
    """One KV group: layers that share a block table."""

    num_blocks: int
    """Blocks in the group's pool."""
    sliding_window: int = 0
    """Tokens a layer of the group looks back; 0: all. Blocks behind the window are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerConfig:
    """Limits and policy; `server.py` takes them from the settings and from WorkerReady."""

    epoch: int
    """Incarnation of the scheduler: greater than any its workers have served."""
    block_size: int
    """Tokens in a block."""
    kv_groups: tuple[GroupConfig, ...]
    """At least one."""
    max_model_len: int
    """Most tokens of prompt and output together; less if the smallest pool holds less."""
    max_num_seqs: int
    """Most sequences running at once: the rows of a worker."""
    max_num_batched_tokens: int
    """Most tokens computed in one step."""
    model_hash: bytes = b""
    """Of weights and dtype; the root of every block hash."""
    vocab_size: int = 1 << 32
    """Tokens in a result are below it."""
    policy: SchedulingPolicy = "fcfs"
    enable_prefix_caching: bool = True
    max_num_queued_requests: int = 1024
    """Most requests that have not been started."""
    max_num_queued_tokens: int = 1 << 24
    """Most prompt tokens of these: 64 MiB of memory."""

    def __post_init__(self) -> None:
        positive = (self.block_size, self.max_model_len, self.max_num_seqs)
        if min(*positive, self.max_num_batched_tokens) < 1 or not self.kv_groups:
            raise ValueError(f"every limit has to be at least 1, with one KV group or more: {self}")

    @property
    def max_sequence_len(self) -> int:
        """Most tokens of one sequence: a sequence that runs alone always fits."""
        capacity = min(group.num_blocks for group in self.kv_groups) * self.block_size
        return min(self.max_model_len, capacity)
