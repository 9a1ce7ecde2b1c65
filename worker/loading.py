"""From settings to a runner that is warm: which files, which type, how much memory."""

import json
import logging
from pathlib import Path
from typing import Any

import torch

from octavo.gguf_file import GGUFFile
from octavo.kernels.threads import num_threads, set_num_threads
from octavo.startup import StartupError, StartupReport
from octavo.v1 import step_pb2

from .checkpoint import Checkpoint
from .cpu import choose_dtype, describe_device
from .dummy_checkpoint import DummyCheckpoint
from .gguf_checkpoint import GGUFCheckpoint
from .kv_cache import (
    allocate_kv_cache,
    block_bytes,
    check_kv_cache_fits,
    default_kv_cache_bytes,
    fitting_blocks,
)
from .memory import available_bytes, return_freed_memory
from .model_runner import ModelRunner
from .models.config import ModelConfig
from .models.decoder import Decoder
from .rows import RowLimits, Rows
from .safetensors_checkpoint import SafetensorsCheckpoint
from .settings import WorkerSettings
from .weights import expected_tensors, load_weights, model_hash, weights_bytes

# Not structlog: without a server, its lines would stand on standard output.
logger = logging.getLogger(__name__)

_WARM_UP_TOKENS = 8


def load_model_runner(settings: WorkerSettings, report: StartupReport) -> ModelRunner:
    """Load the model and take the memory it runs in.

    Raises StartupError, naming the file or the flag, for all that an operator can mend.
    """
    _refuse_numbers_below_one(settings)
    set_num_threads(settings.cpu_threads)
    torch.set_num_threads(num_threads())
    config, checkpoint = open_model(settings)
    dtype = choose_dtype(settings.dtype)
    size = weights_bytes(config, checkpoint, dtype, settings.quantization)
    limits = _limits(settings, config, dtype, size)
    (num_blocks,) = limits.num_blocks
    ready = _describe(config, limits, dtype, size)
    _warn_of_limits(settings, config, ready)
    report.stage(f"config: {config.num_layers} layers, context of {limits.max_model_len:,} tokens")

    weights = load_weights(config, checkpoint, dtype, settings.quantization)
    return_freed_memory()
    report.stage(f"weights {size / 1e9:.2f} GB {settings.quantization or _name(dtype)}")

    kv_cache = allocate_kv_cache(config, num_blocks, limits.block_size, dtype)
    report.stage(
        f"KV cache {kv_cache.nbytes / 1e9:.2f} GB: {num_blocks:,} blocks of"
        f" {limits.block_size} tokens"
    )

    ready.model_hash = model_hash(config, checkpoint, dtype, settings.quantization)
    ready.model_path = str(checkpoint.path.absolute())
    decoder = Decoder(config, weights, kv_cache.layers, limits.max_model_len)
    if decoder.is_native:
        # What torch still does in a step is small, and after it OpenMP's threads would spin for
        # milliseconds on the cores of the kernels' own.
        torch.set_num_threads(1)
    runner = ModelRunner(decoder, kv_cache, Rows(limits), ready)
    _warm_up(runner, limits)
    report.stage(f"warm-up on {describe_device()}")
    return runner


def describe_worker(settings: WorkerSettings) -> tuple[ModelConfig, step_pb2.WorkerReady]:
    """Say what a worker with these settings would be and hold, without loading it.

    Raises StartupError where the worker would.
    """
    _refuse_numbers_below_one(settings)
    config, checkpoint = open_model(settings)
    dtype = choose_dtype(settings.dtype)
    size = weights_bytes(config, checkpoint, dtype, settings.quantization)
    return config, _describe(config, _limits(settings, config, dtype, size), dtype, size)


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


def open_model(settings: WorkerSettings) -> tuple[ModelConfig, Checkpoint]:
    """Find config and weights at the model's path, and read their headers."""
    path = Path(settings.model)
    if not path.exists():
        raise StartupError(f"{path}: no such model. Give a directory or a .gguf file.")
    is_directory = path.is_dir()
    if not is_directory and path.suffix != ".gguf":
        raise StartupError(f"{path}: not a model. Give a directory or a .gguf file.")
    if settings.load_format == ("gguf" if is_directory else "safetensors"):
        raise StartupError(
            f"{path}: is a {'directory' if is_directory else '.gguf file'}, which --load-format"
            f" {settings.load_format} does not read. Leave the flag out."
        )
    if settings.quantization == "gguf" and (is_directory or settings.load_format == "dummy"):
        raise StartupError(
            f"{path}: --quantization gguf runs the weights of a .gguf file as they are stored, and"
            " these are not. Give int8 or int4, or leave the flag out."
        )
    if is_directory:
        config = ModelConfig.from_hf(
            _read_json(path / "config.json"),
            _read_json(path / "generation_config.json", {}),
            str(path / "config.json"),
        )
    else:
        file = GGUFFile.open(path)
        config = ModelConfig.from_gguf(file)
    if settings.load_format == "dummy":
        return config, DummyCheckpoint(path, expected_tensors(config), settings.seed)
    return config, SafetensorsCheckpoint(path) if is_directory else GGUFCheckpoint(file, config)


def _refuse_numbers_below_one(settings: WorkerSettings) -> None:
    for name in (
        "block_size",
        "max_model_len",
        "max_num_seqs",
        "max_num_batched_tokens",
        "kv_cache_memory_bytes",
        "num_gpu_blocks_override",
        "cpu_threads",
    ):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise StartupError(f"--{name.replace('_', '-')} is {value}; give at least 1.")


def _read_json(path: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not path.exists():
        return default
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StartupError(f"{path}: cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise StartupError(f"{path}: not a JSON object.")
    return value


def _limits(
    settings: WorkerSettings, config: ModelConfig, dtype: torch.dtype, size: int
) -> RowLimits:
    """Choose the number of blocks, and the context: what was asked for, trained for, and fits."""
    block_size = settings.block_size
    bytes_per_block = block_bytes(config, block_size, dtype)
    num_blocks = settings.num_gpu_blocks_override or fitting_blocks(
        bytes_per_block,
        settings.kv_cache_memory_bytes or default_kv_cache_bytes(size),
    )
    check_kv_cache_fits(num_blocks, bytes_per_block)
    asked, trained = settings.max_model_len, config.max_position_embeddings
    if asked is not None and asked > trained:
        raise StartupError(
            f"--max-model-len {asked} is more than the {trained} tokens the model was trained for."
        )
    if asked is not None and asked > num_blocks * block_size:
        raise StartupError(
            f"--max-model-len {asked} does not fit: the KV cache has {num_blocks} blocks of"
            f" {block_size} tokens. Raise --kv-cache-memory-bytes or lower the length."
        )
    return RowLimits(
        num_rows=settings.max_num_seqs,
        max_model_len=min(asked or trained, num_blocks * block_size),
        block_size=block_size,
        num_blocks=(num_blocks,),
        vocab_size=config.vocab_size,
        max_num_batched_tokens=settings.max_num_batched_tokens,
    )


def _describe(
    config: ModelConfig, limits: RowLimits, dtype: torch.dtype, size: int
) -> step_pb2.WorkerReady:
    """Say what model, device and limits there are to plan for."""
    (num_blocks,) = limits.num_blocks
    return step_pb2.WorkerReady(
        dtype=_name(dtype),
        block_size=limits.block_size,
        kv_groups=[step_pb2.KVGroup(num_blocks=num_blocks, layers=list(range(config.num_layers)))],
        num_rows=limits.num_rows,
        vocab_size=config.vocab_size,
        max_model_len=limits.max_model_len,
        eos_token_ids=config.eos_token_ids,
        device=describe_device(),
        memory=step_pb2.MemoryLedger(
            weights_bytes=size,
            kv_cache_bytes=num_blocks * block_bytes(config, limits.block_size, dtype),
            activations_bytes=_activations_bytes(config, limits, dtype),
        ),
        max_num_batched_tokens=limits.max_num_batched_tokens,
    )


def _activations_bytes(config: ModelConfig, limits: RowLimits, dtype: torch.dtype) -> int:
    """Return what the largest step holds at once, and the table of rotary positions.

    A step is at its largest in a layer's MLP (gate, up and their product) or in the logits.
    """
    widest = 2 * config.hidden_size + 3 * config.intermediate_size
    tokens = limits.max_num_batched_tokens * widest * dtype.itemsize
    logits = limits.num_rows * config.vocab_size * torch.float32.itemsize
    return tokens + logits + limits.max_model_len * config.head_dim * torch.float32.itemsize


def _warn_of_limits(
    settings: WorkerSettings, config: ModelConfig, ready: step_pb2.WorkerReady
) -> None:
    """Tell now what would be noticed later: requests too long, or memory that runs out."""
    if note := lowered_context(settings, config, ready):
        logger.warning(note)
    needed = (
        ready.memory.weights_bytes + ready.memory.kv_cache_bytes + ready.memory.activations_bytes
    )
    if needed > (available := available_bytes()):
        logger.warning(
            "once the KV cache is full the model takes %.1f GB, and %.1f GB are available. Lower"
            " --kv-cache-memory-bytes, or the system may end the worker when memory runs out.",
            needed / 1e9,
            available / 1e9,
        )


def _warm_up(runner: ModelRunner, limits: RowLimits) -> None:
    """Run one row through all of a step, so that kernels are built before the first request."""
    num_tokens = min(
        _WARM_UP_TOKENS, limits.block_size, limits.max_model_len, limits.max_num_batched_tokens
    )
    runner.execute(
        step_pb2.StepPlan(
            added_rows=[
                step_pb2.AddedRow(
                    row=0,
                    token_ids=[0] * num_tokens,
                    num_prompt_tokens=num_tokens,
                    block_tables=[step_pb2.BlockTable(block_ids=[0])],
                )
            ],
            row=[0],
            num_new_tokens=[num_tokens],
            needs_sample=[1],
            groups=[step_pb2.GroupBlocks()],
        )
    )
    runner.execute(step_pb2.StepPlan(freed_rows=[0], groups=[step_pb2.GroupBlocks()]))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
