"""From settings to a runner that is warm: which files, which type, how much memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from octavo.gguf_file import GGUFFile
from octavo.kernels.threads import num_threads, set_num_threads
from octavo.startup import StartupError, StartupReport
from octavo.v1 import step_pb2

from .capacity import (
    choose_limits,
    describe,
    room,
    warn_of_context,
    warn_of_memory,
)
from .checkpoint import Checkpoint
from .cuda_graphs import CudaGraphRecorder, GraphRecorder
from .device_kv_cache import allocate_device_kv_cache
from .device_memory import DeviceMemory, MeasuredMemory
from .device_rows import DeviceRows
from .device_runner import DeviceRunner
from .device_stream import stream_of
from .device_trial import try_out
from .devices import (
    check_quantization,
    choose_cache_dtype,
    choose_device,
    choose_dtype,
    describe_device,
    memory_of,
    runs_beside_cpu,
    total_bytes,
)
from .dummy_checkpoint import DummyCheckpoint
from .dummy_plans import EVERY_KIND_OF_SAMPLING
from .gguf_checkpoint import GGUFCheckpoint
from .kv_cache import allocate_kv_cache
from .memory import return_freed_memory
from .memory_ledger import MemoryLedger
from .model_directory import open_directory, open_dummy
from .model_runner import ModelRunner
from .models.config import ModelConfig
from .models.decoder import Decoder, DecoderWeights
from .rows import RowLimits, Rows
from .settings import WorkerSettings
from .weights import expected_tensors, load_weights, model_hash, numbers_of, weights_bytes

_WARM_UP_TOKENS = 8


def load_model_runner(
    settings: WorkerSettings, report: StartupReport
) -> ModelRunner | DeviceRunner:
    """Load the model and take the memory it runs in.

    Raises StartupError, naming the file or the flag, for all that an operator can mend.
    """
    device = choose_device(settings.device)
    _refuse(settings, device)
    set_num_threads(settings.cpu_threads)
    torch.set_num_threads(num_threads())
    config, checkpoint = open_model(settings)
    dtype = choose_dtype(settings.dtype, device)
    cache_dtype = choose_cache_dtype(settings.kv_cache_dtype, dtype, device)
    stored = (config, checkpoint, dtype, settings.quantization, _queued_on(device))
    size = weights_bytes(*stored)
    limits = choose_limits(settings, config, dtype, size, device)
    ready = describe(config, limits, dtype, size, device, cache_dtype)
    warn_of_memory(ready, device)
    memory = memory_of(device)
    free_at_start_bytes = memory.free_bytes() if memory is not None else 0
    report.stage(f"config: {config.num_layers} layers, context of {limits.max_model_len:,} tokens")

    weights = _with_memory(partial(load_weights, *stored), size, device)
    return_freed_memory()
    report.stage(f"weights {size / 1e9:.2f} GB {numbers_of(*stored[1:])}")

    model = _Model(config, weights, limits, ready, cache_dtype)
    if memory is not None:
        recorder = _graph_recorder(settings, device)
        measured = _try_out(model, device, memory, free_at_start_bytes, recorder)
        limits = choose_limits(settings, config, dtype, size, device, measured)
        ready = describe(config, limits, dtype, size, device, cache_dtype, measured)
        report.stage(MemoryLedger(measured, ready.memory.kv_cache_bytes).line())
        model = _Model(config, weights, limits, ready, cache_dtype)
    warn_of_context(settings, config, ready)
    ready.model_hash = model_hash(config, checkpoint, dtype, settings.quantization, cache_dtype)
    ready.model_path = str(checkpoint.path.absolute())
    runner = (
        _device_runner(model, device, _graph_recorder(settings, device))
        if runs_beside_cpu(device)
        else _cpu_runner(model)
    )
    report.stage(f"KV cache {ready.memory.kv_cache_bytes / 1e9:.2f} GB: {room(ready)}")
    _warm_up(runner, limits)
    report.stage(f"warm-up on {ready.device}")
    return runner


def describe_worker(settings: WorkerSettings) -> tuple[ModelConfig, step_pb2.WorkerReady]:
    """Say what a worker with these settings would be and hold, without loading it.

    Sets the kernels' threads, which are part of it. Raises StartupError where the worker would.
    """
    device = choose_device(settings.device)
    _refuse(settings, device)
    set_num_threads(settings.cpu_threads)
    config, checkpoint = open_model(settings)
    dtype = choose_dtype(settings.dtype, device)
    size = weights_bytes(config, checkpoint, dtype, settings.quantization, _queued_on(device))
    limits = choose_limits(settings, config, dtype, size, device)
    cache_dtype = choose_cache_dtype(settings.kv_cache_dtype, dtype, device)
    return config, describe(config, limits, dtype, size, device, cache_dtype)


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
    is_dummy = settings.load_format == "dummy"
    if is_directory:
        return open_dummy(path, settings.seed) if is_dummy else open_directory(path)
    file = GGUFFile.open(path)
    config = ModelConfig.from_gguf(file)
    if is_dummy:
        return config, DummyCheckpoint(path, expected_tensors(config), settings.seed)
    return config, GGUFCheckpoint(file, config)


@dataclass(frozen=True, slots=True)
class _Model:
    """What was loaded, and what it may take."""

    config: ModelConfig
    weights: DecoderWeights
    limits: RowLimits
    ready: step_pb2.WorkerReady
    cache_dtype: torch.dtype


def _with_memory(
    load: Callable[[], DecoderWeights], size: int, device: torch.device
) -> DecoderWeights:
    try:
        return load()
    except torch.OutOfMemoryError as error:
        raise StartupError(
            f"no memory for the weights: they take {size / 1e9:.2f} GB, and"
            f" {describe_device(device)} has {total_bytes(device) / 1e9:.2f} GB for all programs."
            " End others, or load weights in fewer bits (--quantization)."
        ) from error


def _cpu_runner(model: _Model) -> ModelRunner:
    config, limits = model.config, model.limits
    (num_blocks,) = limits.num_blocks
    kv_cache = allocate_kv_cache(config, num_blocks, limits.block_size, model.cache_dtype)
    decoder = Decoder(config, model.weights, kv_cache.layers, limits.max_model_len)
    if decoder.is_native:
        # What torch still does in a step is small, and after it OpenMP's threads would spin for
        # milliseconds on the cores of the kernels' own.
        torch.set_num_threads(1)
    return ModelRunner(decoder, kv_cache, Rows(limits), model.ready)


def _try_out(
    model: _Model,
    device: torch.device,
    memory: DeviceMemory,
    free_at_start_bytes: int,
    recorder: GraphRecorder | None,
) -> MeasuredMemory:
    """Return what the model takes of a device, the KV cache aside."""

    def make_runner(limits: RowLimits) -> DeviceRunner:
        return _device_runner(replace(model, limits=limits), device, None)

    return try_out(make_runner, model.limits, memory, free_at_start_bytes, recorder)


def _graph_recorder(settings: WorkerSettings, device: torch.device) -> GraphRecorder | None:
    has_graphs = device.type == "cuda" and not settings.enforce_eager
    return CudaGraphRecorder() if has_graphs else None


def _device_runner(
    model: _Model, device: torch.device, recorder: GraphRecorder | None
) -> DeviceRunner:
    config, limits = model.config, model.limits
    (num_blocks,) = limits.num_blocks
    kv_cache = allocate_device_kv_cache(
        config, num_blocks, limits.block_size, model.cache_dtype, device
    )
    decoder = Decoder(config, model.weights, kv_cache.layers, limits.max_model_len)
    rows, device_rows = Rows(limits), DeviceRows(limits, device)
    stream = stream_of(device)
    return DeviceRunner(decoder, kv_cache, rows, device_rows, model.ready, stream, recorder)


def _queued_on(device: torch.device) -> torch.device | None:
    return device if runs_beside_cpu(device) else None


def _refuse(settings: WorkerSettings, device: torch.device) -> None:
    """Raise StartupError for what cannot be, whatever the model is."""
    check_quantization(settings.quantization, device)
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


def _warm_up(runner: ModelRunner | DeviceRunner, limits: RowLimits) -> None:
    """Run one row through all of a step, so that kernels are built before the first request.

    Through two where there is room: a prompt, and a token after it, in a copy of its block.
    """
    longest = min(limits.block_size, limits.max_model_len)
    num_tokens = min(_WARM_UP_TOKENS, longest, limits.max_num_batched_tokens)
    added = step_pb2.AddedRow(
        row=0,
        token_ids=[0] * num_tokens,
        num_prompt_tokens=num_tokens,
        block_tables=[step_pb2.BlockTable(block_ids=[0])],
        sampling=EVERY_KIND_OF_SAMPLING,
        num_logprobs=1,
        num_prompt_logprobs=1,
    )
    runner.execute(_warm_up_step(num_tokens, added_rows=[added]))
    if num_tokens < longest:
        copied = step_pb2.GroupBlocks()
        if min(limits.num_blocks) > 1:
            copied = step_pb2.GroupBlocks(copy_row=[0], copy_source=[0], copy_target=[1])
        runner.execute(_warm_up_step(1, blocks=copied))
    runner.execute(step_pb2.StepPlan(freed_rows=[0], groups=[step_pb2.GroupBlocks()]))


def _warm_up_step(
    num_new_tokens: int,
    added_rows: Sequence[step_pb2.AddedRow] = (),
    blocks: step_pb2.GroupBlocks | None = None,
) -> step_pb2.StepPlan:
    return step_pb2.StepPlan(
        added_rows=added_rows,
        row=[0],
        num_new_tokens=[num_new_tokens],
        needs_sample=[1],
        groups=[blocks or step_pb2.GroupBlocks()],
    )
