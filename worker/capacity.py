"""What fits: how many blocks of KV, how long a context, and what the scheduler is told of it."""

import logging
from dataclasses import replace

import torch

from octavo.startup import StartupError
from octavo.v1 import step_pb2

from .device_kv_cache import device_block_bytes
from .device_memory import MeasuredMemory
from .devices import (
    batched_tokens,
    choose_cache_dtype,
    describe_device,
    free_bytes,
    kv_cache_bytes,
    runs_beside_cpu,
    total_bytes,
)
from .kv_cache import block_bytes, check_kv_cache_fits, fitting_blocks
from .models.config import ModelConfig
from .rows import RowLimits
from .settings import WorkerSettings

# Not structlog: without a server, its lines would stand on standard output.
logger = logging.getLogger(__name__)


def choose_limits(
    settings: WorkerSettings,
    config: ModelConfig,
    dtype: torch.dtype,
    weights_bytes: int,
    device: torch.device,
    measured: MeasuredMemory | None = None,
) -> RowLimits:
    """Choose the number of blocks, and the context: what was asked for, trained for, and fits.

    Args:
        measured: what the model takes of its device; None: it is estimated.
    """
    block_size = settings.block_size
    cache_dtype = choose_cache_dtype(settings.kv_cache_dtype, dtype, device)
    bytes_per_block = _block_bytes(config, block_size, cache_dtype, device)
    asked, trained = settings.max_model_len, config.max_position_embeddings
    largest = RowLimits(
        num_rows=settings.max_num_seqs,
        max_model_len=asked or trained,
        block_size=block_size,
        num_blocks=(0,),
        vocab_size=config.vocab_size,
        max_num_batched_tokens=settings.max_num_batched_tokens or batched_tokens(device),
    )
    share = settings.gpu_memory_utilization

    def default_bytes() -> int:
        if measured is not None:
            return measured.kv_cache_bytes(share)
        activations_bytes = _activations_bytes(config, largest, dtype)
        return kv_cache_bytes(device, weights_bytes, activations_bytes, share)

    num_blocks = settings.num_gpu_blocks_override or fitting_blocks(
        bytes_per_block, settings.kv_cache_memory_bytes or default_bytes()
    )
    check_kv_cache_fits(num_blocks, bytes_per_block, total_bytes(device))
    if asked is not None and asked > trained:
        raise StartupError(
            f"--max-model-len {asked} is more than the {trained} tokens the model was trained for."
        )
    if asked is not None and asked > num_blocks * block_size:
        raise StartupError(
            f"--max-model-len {asked} does not fit: the KV cache has {num_blocks} blocks of"
            f" {block_size} tokens. Raise --kv-cache-memory-bytes or lower the length."
        )
    return replace(
        largest,
        num_blocks=(num_blocks,),
        max_model_len=min(asked or trained, num_blocks * block_size),
    )


def describe(
    config: ModelConfig,
    limits: RowLimits,
    dtype: torch.dtype,
    weights_bytes: int,
    device: torch.device,
    cache_dtype: torch.dtype,
    measured: MeasuredMemory | None = None,
) -> step_pb2.WorkerReady:
    """Say what model, device and limits there are to plan for; `measured` as in choose_limits."""
    (num_blocks,) = limits.num_blocks
    bytes_per_block = _block_bytes(config, limits.block_size, cache_dtype, device)
    return step_pb2.WorkerReady(
        dtype=name_of(dtype),
        block_size=limits.block_size,
        kv_groups=[step_pb2.KVGroup(num_blocks=num_blocks, layers=list(range(config.num_layers)))],
        num_rows=limits.num_rows,
        vocab_size=config.vocab_size,
        max_model_len=limits.max_model_len,
        eos_token_ids=config.eos_token_ids,
        device=describe_device(device),
        memory=step_pb2.MemoryLedger(
            weights_bytes=weights_bytes,
            kv_cache_bytes=num_blocks * bytes_per_block,
            activations_bytes=(
                measured.activations_bytes
                if measured is not None
                else _activations_bytes(config, limits, dtype)
            ),
            graphs_bytes=measured.graphs_bytes if measured is not None else 0,
        ),
        max_num_batched_tokens=limits.max_num_batched_tokens,
    )


def requests_at_once(worker: step_pb2.WorkerReady, length: int) -> int:
    """Return how many outputs of `length` tokens, prompts included, can run without waiting.

    Shared prefixes count once in the KV cache, so that more may fit.
    """
    blocks_each = -(-length // worker.block_size)
    return int(min(worker.num_rows, worker.kv_groups[0].num_blocks // blocks_each))


def lowered_context(
    settings: WorkerSettings, config: ModelConfig, worker: step_pb2.WorkerReady
) -> str | None:
    """Return a sentence for an operator who did not ask for the context being this short."""
    trained = config.max_position_embeddings
    if settings.max_model_len is not None or worker.max_model_len == trained:
        return None
    return (
        f"the model was trained for {trained:,} tokens; the context is lowered to the"
        f" {worker.max_model_len:,} that the KV cache holds. Raise --kv-cache-memory-bytes."
    )


def room(worker: step_pb2.WorkerReady) -> str:
    """Say what the KV cache holds, in tokens and in requests as long as the context."""
    (group,) = worker.kv_groups
    return (
        f"{group.num_blocks:,} blocks of {worker.block_size} tokens:"
        f" {group.num_blocks * worker.block_size:,} tokens ="
        f" {requests_at_once(worker, worker.max_model_len):,} requests of"
        f" {worker.max_model_len:,}"
    )


def warn_of_context(
    settings: WorkerSettings, config: ModelConfig, ready: step_pb2.WorkerReady
) -> None:
    """Tell now what requests too long would be told later."""
    if note := lowered_context(settings, config, ready):
        logger.warning(note)


def warn_of_memory(ready: step_pb2.WorkerReady, device: torch.device) -> None:
    """Tell, before anything is loaded, that memory will run out."""
    needed = (
        ready.memory.weights_bytes + ready.memory.kv_cache_bytes + ready.memory.activations_bytes
    )
    if needed > (available := free_bytes(device)):
        logger.warning(
            "once the KV cache is full the model takes %.1f GB, and %.1f GB are available. Lower"
            " --kv-cache-memory-bytes, or the system may end the worker when memory runs out.",
            needed / 1e9,
            available / 1e9,
        )


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _block_bytes(
    config: ModelConfig, block_size: int, cache_dtype: torch.dtype, device: torch.device
) -> int:
    of_layout = device_block_bytes if runs_beside_cpu(device) else block_bytes
    return of_layout(config, block_size, cache_dtype)


def _activations_bytes(config: ModelConfig, limits: RowLimits, dtype: torch.dtype) -> int:
    """Return what the largest step holds at once, and the table of rotary positions.

    A step is at its largest in a layer's MLP (gate, up and their product) or in the logits.
    """
    widest = 2 * config.hidden_size + 3 * config.intermediate_size
    tokens = limits.max_num_batched_tokens * widest * dtype.itemsize
    logits = limits.num_rows * config.vocab_size * torch.float32.itemsize
    return tokens + logits + limits.max_model_len * config.head_dim * torch.float32.itemsize
