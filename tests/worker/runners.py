"""Builds runners of tiny models, with traps in all memory that must not be read."""

import math
from pathlib import Path

import torch

from octavo.startup import StartupReport
from octavo.v1 import step_pb2
from octavo.worker.capacity import describe
from octavo.worker.cuda_graphs import GraphRecorder
from octavo.worker.device_kv_cache import allocate_device_kv_cache
from octavo.worker.device_rows import DeviceRows
from octavo.worker.device_runner import DeviceRunner
from octavo.worker.device_stream import DeviceStream, stream_of
from octavo.worker.kv_cache import allocate_kv_cache
from octavo.worker.loading import load_model_runner, open_model
from octavo.worker.model_runner import ModelRunner
from octavo.worker.models.config import ModelConfig
from octavo.worker.models.decoder import Decoder
from octavo.worker.rows import RowLimits, Rows
from octavo.worker.settings import Dtype, WorkerSettings
from octavo.worker.weights import load_weights

BLOCK_SIZE = 4
NUM_BLOCKS = 256


def settings_for(
    model: Path, *, dtype: Dtype = "float32", num_blocks: int = NUM_BLOCKS
) -> WorkerSettings:
    return WorkerSettings(
        model=str(model),
        scheduler_endpoint="ipc:///nowhere",
        device="cpu",
        dtype=dtype,
        block_size=BLOCK_SIZE,
        max_num_seqs=16,
        num_gpu_blocks_override=num_blocks,
    )


def loaded_runner(model: Path, *, dtype: Dtype = "float32") -> ModelRunner:
    """Return a runner as the worker process makes it."""
    runner = load_model_runner(settings_for(model, dtype=dtype), StartupReport(None))
    assert isinstance(runner, ModelRunner)
    return runner


def poisoned_runner(model: Path, *, cache_dtype: torch.dtype = torch.float32) -> ModelRunner:
    """Return a float32 runner whose unused rows hold trap values and whose cache holds NaN."""
    config, checkpoint = open_model(settings_for(model))
    kv_cache = allocate_kv_cache(config, NUM_BLOCKS, BLOCK_SIZE, cache_dtype)
    # Of int8, scales of four bytes of -1 are NaN.
    kv_cache.tensor.fill_(math.nan if cache_dtype.is_floating_point else -1)
    limits = _limits(config, NUM_BLOCKS, BLOCK_SIZE)
    weights = load_weights(config, checkpoint, torch.float32)
    decoder = Decoder(config, weights, kv_cache.layers, limits.max_model_len)
    return ModelRunner(decoder, kv_cache, Rows(limits, poison=True), step_pb2.WorkerReady())


def poisoned_device_runner(
    model: Path,
    *,
    num_blocks: int = NUM_BLOCKS,
    block_size: int = BLOCK_SIZE,
    max_num_batched_tokens: int = 2048,
    stream: DeviceStream | None = None,
    recorder: GraphRecorder | None = None,
) -> DeviceRunner:
    """Return the same for a device; without one, in plain PyTorch or Triton's interpreter."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config, checkpoint = open_model(settings_for(model))
    kv_cache = allocate_device_kv_cache(config, num_blocks, block_size, torch.float32, device)
    kv_cache.tensor.fill_(math.nan)
    limits = _limits(config, num_blocks, block_size, max_num_batched_tokens)
    weights = load_weights(config, checkpoint, torch.float32, device=device)
    return DeviceRunner(
        Decoder(config, weights, kv_cache.layers, limits.max_model_len),
        kv_cache,
        Rows(limits, poison=True),
        DeviceRows(limits, device, poison=True),
        describe(config, limits, torch.float32, 0, device, torch.float32),
        stream or stream_of(device),
        recorder,
    )


def _limits(
    config: ModelConfig, num_blocks: int, block_size: int, max_num_batched_tokens: int = 2048
) -> RowLimits:
    return RowLimits(
        num_rows=16,
        max_model_len=config.max_position_embeddings,
        block_size=block_size,
        num_blocks=(num_blocks,),
        vocab_size=config.vocab_size,
        max_num_batched_tokens=max_num_batched_tokens,
    )
