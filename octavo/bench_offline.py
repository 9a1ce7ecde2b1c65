"""`octavo bench throughput` and `octavo bench latency`: a model in this process, without a server.

What is measured, and the names of the flags, are those of `vllm bench`.
"""

import contextlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from octavo import LLM, SamplingParams

from .bench_dataset import BenchPrompt
from .bench_report import check_writable, report, spread_ms
from .bench_workload import USUAL_VOCAB_SIZE, make_workload
from .errors import RequestError
from .flag_types import Count
from .kernels.profile import seconds_by_part
from .model_files import resolve_model
from .progress_bar import progress_bar
from .startup import StartupError
from .worker.loading import open_model
from .worker.settings import Dtype, Quantization, WorkerSettings


@dataclass(frozen=True, kw_only=True)
class OfflineSettings:
    """Flags of both commands."""

    model: str = "demo"
    """As for `octavo serve`."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; unset: main."""
    offline: Annotated[bool, Parameter(negative=())] = False
    """Use what was fetched from the hub before, and no network."""
    dtype: Dtype = "auto"
    """Type of weights and activations; auto chooses what this machine computes fast."""
    quantization: Quantization | None = None
    """Weights in few bits, as for `octavo serve`."""
    input_len: Count = 128
    """Tokens of each random prompt."""
    output_len: Count = 128
    """Tokens of each output, where a file says nothing else."""
    seed: int = 0
    """Seed of the random prompts."""
    output_json: Path | None = None
    """File for the results."""
    config: Path | None = None
    """YAML file that gives flags; the command line and the environment go before it."""


@dataclass(frozen=True, kw_only=True)
class ThroughputSettings(OfflineSettings):
    """Flags of `octavo bench throughput`."""

    dataset: str = "random"
    """`random`, a ShareGPT file, or one of {"prompt": TEXT, "output_tokens": NUMBER} a line."""
    num_prompts: Count = 64
    """Prompts, all there from the start."""
    max_num_seqs: Count = 256
    """Most outputs that run at once."""


@dataclass(frozen=True, kw_only=True)
class LatencySettings(OfflineSettings):
    """Flags of `octavo bench latency`."""

    batch_size: Count = 8
    """Prompts of one batch."""
    num_iters: Count = 5
    """Batches to measure, one after another; one more warms up."""


def throughput(
    *, settings: Annotated[ThroughputSettings, Parameter(name="*")] = ThroughputSettings()
) -> int:
    """Measure tokens per second with many prompts at once, without a server."""
    try:
        check_writable(settings.output_json)
        path = _model_path(settings)
        workload = _workload(settings, path, settings.dataset, settings.num_prompts)
        with contextlib.closing(_load(settings, path, settings.max_num_seqs)) as llm:
            # The first step of a process builds kernels and wakes threads.
            _generate(llm, [BenchPrompt([0], 1)])
            before, started_s = seconds_by_part(), time.perf_counter()
            num_input_tokens, num_output_tokens = _generate(llm, workload, shows_progress=True)
            duration_s = time.perf_counter() - started_s
            parts = {part: s - before[part] for part, s in seconds_by_part().items()}
        results = {
            "completed": len(workload),
            "duration_s": round(duration_s, 3),
            "input_tokens": num_input_tokens,
            "output_tokens": num_output_tokens,
            "requests_per_second": round(len(workload) / duration_s, 3),
            "output_tokens_per_second": round(num_output_tokens / duration_s, 2),
            "total_tokens_per_second": round(
                (num_input_tokens + num_output_tokens) / duration_s, 2
            ),
            **_shares(parts, duration_s),
        }
        report(f"{settings.model}, offline", results, settings.output_json)
    except (RequestError, StartupError) as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 1
    return 0


def _shares(parts: dict[str, float], duration_s: float) -> dict[str, dict[str, float]]:
    """Return the seconds of each part of the work and its per cent of all.

    What the kernels did not count is Python's: plans, rows, tokens. `waiting` is within the parts.
    """
    waiting_s = parts.pop("waiting")
    seconds = {**parts, "python": duration_s - sum(parts.values()), "waiting": waiting_s}
    return {
        f"time_{part}": {"seconds": round(s, 3), "percent": round(100 * s / duration_s, 1)}
        for part, s in seconds.items()
    }


def latency(
    *, settings: Annotated[LatencySettings, Parameter(name="*")] = LatencySettings()
) -> int:
    """Measure how long one batch takes from its first prompt to its last token."""
    try:
        check_writable(settings.output_json)
        # No two batches are alike, or the prefix cache would have computed the later ones.
        size = settings.batch_size
        path = _model_path(settings)
        prompts = _workload(settings, path, "random", size * (settings.num_iters + 1))
        batches = [prompts[i : i + size] for i in range(0, len(prompts), size)]
        durations_s = []
        with (
            contextlib.closing(_load(settings, path, size)) as llm,
            progress_bar("batches", settings.num_iters) as advance,
        ):
            _generate(llm, batches.pop())
            for batch in batches:
                started_s = time.perf_counter()
                _generate(llm, batch)
                durations_s.append(time.perf_counter() - started_s)
                advance()
        num_output_tokens = len(batches) * size * settings.output_len
        num_tokens = num_output_tokens + len(batches) * size * settings.input_len
        results = {
            "batch_size": size,
            "num_iters": len(batches),
            "output_tokens_per_second": round(num_output_tokens / sum(durations_s), 2),
            "total_tokens_per_second": round(num_tokens / sum(durations_s), 2),
            "latency_ms": spread_ms(durations_s),
        }
        report(f"{settings.model}, offline", results, settings.output_json)
    except (RequestError, StartupError) as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 1
    return 0


def _model_path(settings: OfflineSettings) -> Path:
    return resolve_model(settings.model, revision=settings.revision, is_offline=settings.offline)


def _workload(
    settings: OfflineSettings, path: Path, dataset: str, num_prompts: int
) -> list[BenchPrompt]:
    config, _ = open_model(WorkerSettings(model=str(path), scheduler_endpoint=""))
    return make_workload(
        dataset,
        num_prompts=num_prompts,
        input_len=settings.input_len,
        output_len=settings.output_len,
        seed=settings.seed,
        vocab_size=min(config.vocab_size, USUAL_VOCAB_SIZE),
    )


def _load(settings: OfflineSettings, path: Path, max_num_seqs: int) -> LLM:
    return LLM(
        model=str(path),
        dtype=settings.dtype,
        quantization=settings.quantization,
        max_num_seqs=max_num_seqs,
    )


def _generate(
    llm: LLM, workload: list[BenchPrompt], *, shows_progress: bool = False
) -> tuple[int, int]:
    """Run the prompts together; return how many tokens went in and came out."""
    outputs = llm.generate(
        [each.prompt for each in workload],
        [
            SamplingParams(temperature=0.0, max_tokens=each.output_len, ignore_eos=True)
            for each in workload
        ],
        use_tqdm=shows_progress,
    )
    num_input_tokens = sum(len(output.prompt_token_ids) for output in outputs)
    return num_input_tokens, sum(len(output.outputs[0].token_ids) for output in outputs)
