"""`octavo plan`: what a model would take on this machine, before anything is loaded."""

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from octavo.flag_types import Bytes, Count, Share
from octavo.model_files import resolve_model
from octavo.startup import StartupError

from .capacity import lowered_context, requests_at_once
from .devices import choose_device, free_bytes
from .loading import describe_worker
from .memory import resident_bytes
from .settings import DeviceName, Dtype, KvCacheDtype, Quantization, WorkerSettings

_WIDTH = 80
_LENGTHS = (512, 2048, 8192, 32_768, 131_072)


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """Flags of `octavo plan`: those of `octavo serve` that decide about memory."""

    device: DeviceName = "auto"
    """What runs the model; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """Type of weights and activations; auto chooses what this machine computes fast."""
    quantization: Quantization | None = None
    """Weights in few bits: int8; on a GPU fp8; on a CPU int4, or gguf: as the file has them."""
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
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; unset: main."""
    offline: Annotated[bool, Parameter(negative=())] = False
    """Use what was fetched from the hub before, and no network."""
    json: Annotated[bool, Parameter(negative=())] = False
    """Print one object, with sizes in bytes and lengths in tokens."""
    config: Path | None = None
    """YAML file that gives flags; the command line and the environment go before it."""


@dataclass(frozen=True, slots=True)
class RequestFit:
    """How many requests of one length run at once."""

    tokens: int
    requests: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What the worker will hold, in bytes of the device's memory, and what fits."""

    model: str
    device: str
    dtype: str
    quantization: str | None
    num_layers: int
    weights_bytes: int
    kv_cache_bytes: int
    """Taken page by page as tokens come, and then kept."""
    activations_bytes: int
    program_bytes: int
    """Python and the libraries, as this process holds them, too; on a GPU nothing."""
    total_bytes: int
    """All of these: the worker at its largest."""
    available_bytes: int
    """What programs can still take on this device."""
    block_size: int
    num_blocks: int
    max_num_batched_tokens: int
    max_model_len: int
    fits: list[RequestFit]
    notes: list[str]


def main(
    model: str, *, settings: Annotated[PlanSettings, Parameter(name="*")] = PlanSettings()
) -> int:
    """Say what a model takes and how many requests fit, without loading it.

    Parameters
    ----------
    model:
        As for `octavo serve`; of a directory, config.json is enough.
    """
    try:
        path = resolve_model(model, revision=settings.revision, is_offline=settings.offline)
        plan = make_plan(model, path, settings)
    except StartupError as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(plan), indent=2) if settings.json else "\n".join(_lines(plan)))
    return 0


def make_plan(model: str, path: Path, settings: PlanSettings) -> Plan:
    """Plan for the model at `path`; raises StartupError where the worker would."""
    worker_settings = WorkerSettings(
        model=str(path),
        scheduler_endpoint="",
        # No weight is read: where they are missing the plan is the same. Only a file's own types
        # are looked up in it.
        load_format="auto" if settings.quantization == "gguf" else "dummy",
        device=settings.device,
        dtype=settings.dtype,
        quantization=settings.quantization,
        block_size=settings.block_size,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        kv_cache_dtype=settings.kv_cache_dtype,
        kv_cache_memory_bytes=settings.kv_cache_memory_bytes,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        num_gpu_blocks_override=settings.num_gpu_blocks_override,
    )
    config, worker = describe_worker(worker_settings)
    memory, (group,) = worker.memory, worker.kv_groups
    # Taken here, after the imports and the model's header: a worker has both behind it, too.
    device = choose_device(settings.device)
    program = resident_bytes() if device.type == "cpu" else 0
    available = free_bytes(device)
    total = program + memory.weights_bytes + memory.kv_cache_bytes + memory.activations_bytes
    notes = []
    if lowered := lowered_context(worker_settings, config, worker):
        notes.append(lowered)
    if total > available:
        notes.append("this is more than is available. Lower --kv-cache-memory-bytes.")
    return Plan(
        model=model,
        device=worker.device,
        dtype=worker.dtype,
        quantization=settings.quantization,
        num_layers=config.num_layers,
        weights_bytes=memory.weights_bytes,
        kv_cache_bytes=memory.kv_cache_bytes,
        activations_bytes=memory.activations_bytes,
        program_bytes=program,
        total_bytes=total,
        available_bytes=available,
        block_size=worker.block_size,
        num_blocks=group.num_blocks,
        max_num_batched_tokens=worker.max_num_batched_tokens,
        max_model_len=worker.max_model_len,
        fits=[
            RequestFit(length, requests_at_once(worker, length))
            for length in _lengths(worker.max_model_len)
        ],
        notes=notes,
    )


def _lengths(max_model_len: int) -> list[int]:
    return [length for length in _LENGTHS if length < max_model_len] + [max_model_len]


def _lines(plan: Plan) -> Iterator[str]:
    longest = plan.fits[-1]
    at_start = plan.total_bytes - plan.kv_cache_bytes - plan.activations_bytes
    numbers = f"{plan.dtype}, {plan.quantization} weights" if plan.quantization else plan.dtype
    yield f"{plan.model}: {plan.num_layers} layers in {numbers} on {plan.device}"
    yield ""
    yield f"  weights      {_shown(plan.weights_bytes)}"
    yield (
        f"  KV cache     {_shown(plan.kv_cache_bytes)}"
        f"   {plan.num_blocks:,} blocks of {plan.block_size} tokens:"
        f" {plan.num_blocks * plan.block_size:,} tokens ="
        f" {longest.requests:,} requests of {longest.tokens:,}"
    )
    yield (
        f"  activations  {_shown(plan.activations_bytes)}"
        f"   of a step of {plan.max_num_batched_tokens:,} tokens"
    )
    if plan.program_bytes:
        yield f"  program      {_shown(plan.program_bytes)}   Python and its libraries"
        yield (
            f"  in all       {_shown(plan.total_bytes)}"
            f"   resident: {at_start / 1e9:.3f} GB at the start, the rest as the KV cache fills"
        )
    else:
        left = max(plan.available_bytes - plan.total_bytes, 0)
        yield f"  in all       {_shown(plan.total_bytes)}   the worker measures it at its start"
        yield f"  reserve      {_shown(left)}   graphs and kernels come out of it"
    yield f"  available    {_shown(plan.available_bytes)}   on this device, now"
    yield ""
    yield f"  context      {plan.max_model_len:8,} tokens"
    for note in plan.notes:
        yield textwrap.fill(f"Note: {note}", _WIDTH, initial_indent="  ", subsequent_indent=" " * 8)
    yield ""
    yield "  tokens of a request   requests at once"
    for fit in plan.fits:
        yield f"  {fit.tokens:>19,}   {fit.requests:>16,}"


def _shown(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:8.3f} GB"
