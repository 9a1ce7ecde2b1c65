"""`octavo plan`: what a model would take on this machine, before anything is loaded."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from octavo.model_files import resolve_model
from octavo.serve_settings import Count
from octavo.startup import StartupError
from octavo.v1.step_pb2 import WorkerReady

from .loading import describe_worker
from .models.config import ModelConfig
from .settings import Dtype, WorkerSettings

_STATM = Path("/proc/self/statm")

_LENGTHS = (512, 2048, 8192, 32_768, 131_072)


def main(
    model: str,
    *,
    dtype: Dtype = "auto",
    block_size: Count = 16,
    max_model_len: Count | None = None,
    max_num_seqs: Count = 256,
    max_num_batched_tokens: Count = 512,
    kv_cache_memory_bytes: Count | None = None,
    num_gpu_blocks_override: Count | None = None,
) -> int:
    """Say what a model takes and how many requests fit, without loading it.

    Parameters
    ----------
    model:
        As for `octavo serve`; of a directory, config.json is enough.
    dtype:
        Type of weights and activations; auto chooses what this machine computes fast.
    block_size:
        Tokens in a KV block.
    max_model_len:
        Most tokens of prompt and output together; unset: what the model was trained for.
    max_num_seqs:
        Most outputs that run at once.
    max_num_batched_tokens:
        Most tokens of one step.
    kv_cache_memory_bytes:
        Memory for the KV cache; unset: a quarter of what the weights leave, 4 GiB at most.
    num_gpu_blocks_override:
        Number of KV blocks, whatever the memory allows.
    """
    try:
        settings = WorkerSettings(
            model=str(resolve_model(model)),
            scheduler_endpoint="",
            # No weight is read: where they are missing the plan is the same.
            load_format="dummy",
            dtype=dtype,
            block_size=block_size,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            kv_cache_memory_bytes=kv_cache_memory_bytes,
            num_gpu_blocks_override=num_gpu_blocks_override,
        )
        config, worker = describe_worker(settings)
    except StartupError as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 1
    print(*_lines(settings, config, worker), sep="\n")
    return 0


def _lines(settings: WorkerSettings, config: ModelConfig, worker: WorkerReady) -> Iterator[str]:
    memory, (group,) = worker.memory, worker.kv_groups
    program = _resident_bytes()
    total = program + memory.weights_bytes + memory.kv_cache_bytes + memory.activations_bytes
    num_tokens = group.num_blocks * worker.block_size
    yield f"{settings.model}"
    yield f"  {config.num_layers} layers, {worker.dtype}, {worker.device}"
    yield ""
    yield f"  weights      {_shown(memory.weights_bytes)}"
    yield (
        f"  KV cache     {_shown(memory.kv_cache_bytes)}"
        f"   {group.num_blocks:,} blocks of {worker.block_size} tokens: {num_tokens:,} tokens"
    )
    yield (
        f"  activations  {_shown(memory.activations_bytes)}"
        f"   the largest step: {worker.max_num_batched_tokens:,} tokens"
    )
    yield f"  the program  {_shown(program)}"
    yield f"  in all       {_shown(total)}"
    yield ""
    yield f"  context      {worker.max_model_len:,} tokens"
    if settings.max_model_len is None and worker.max_model_len < config.max_position_embeddings:
        yield (
            f"  Note: the model was trained for {config.max_position_embeddings:,} tokens; the"
            " context is lowered to what the KV cache holds. Raise --kv-cache-memory-bytes."
        )
    yield ""
    yield "  tokens of a request   requests at once"
    for length in _lengths(worker.max_model_len):
        yield f"  {length:>19,}   {requests_at_once(worker, length):>16,}"


def requests_at_once(worker: WorkerReady, length: int) -> int:
    """Return how many outputs of `length` tokens, prompts included, can run without waiting.

    Shared prefixes count once in the KV cache, so that more may fit.
    """
    blocks_each = -(-length // worker.block_size)
    return int(min(worker.num_rows, worker.kv_groups[0].num_blocks // blocks_each))


def _lengths(max_model_len: int) -> list[int]:
    return [length for length in _LENGTHS if length < max_model_len] + [max_model_len]


def _resident_bytes() -> int:
    """Return the memory this process holds: the same libraries that a worker has loaded."""
    if not _STATM.exists():
        return 0
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _shown(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:8.3f} GB"
