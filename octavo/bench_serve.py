"""`octavo bench serve`: how fast a running server answers, seen from a client.

What is measured, and the names of the flags, are those of `vllm bench serve`.
"""

import asyncio
import itertools
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
from cyclopts import Parameter
from cyclopts.validators import Number

from .bench_dataset import BenchPrompt
from .bench_report import check_writable, report, spread_ms
from .bench_workload import USUAL_VOCAB_SIZE, make_workload
from .client_settings import ClientSettings
from .flag_types import Count
from .openai_client import (
    TIMEOUT,
    OpenAIClient,
    ServerError,
    api_url,
    headers,
    read_chunk,
    refusal,
    unreachable,
)
from .progress_bar import progress_bar
from .startup import StartupError


@dataclass(frozen=True, kw_only=True)
class BenchServeSettings(ClientSettings):
    """Flags of `octavo bench serve`."""

    dataset: str = "random"
    """`random`, a ShareGPT file, or one of {"prompt": TEXT, "output_tokens": NUMBER} a line."""
    num_prompts: Count = 100
    """Requests to send."""
    input_len: Count = 128
    """Tokens of each random prompt."""
    output_len: Count = 128
    """Tokens of each output, where the file says nothing else."""
    request_rate: Annotated[float, Parameter(validator=Number(gt=0))] = math.inf
    """Requests a second on average, at random intervals; inf sends all at once."""
    max_concurrency: Count | None = None
    """Most requests under way at once; unset: no limit."""
    seed: int = 0
    """Seed of the random prompts and intervals."""
    vocab_size: Count = USUAL_VOCAB_SIZE
    """Token ids of random prompts are below this; lower it for a model that has fewer."""
    output_json: Path | None = None
    """File for the results."""


@dataclass
class Measured:
    """One request, in seconds since it was sent."""

    ttft_s: float = 0.0
    """Until the first text."""
    latency_s: float = 0.0
    """Until the last."""
    intervals_s: list[float] = field(default_factory=list)
    """Between one chunk with text and the next."""
    num_input_tokens: int = 0
    num_output_tokens: int = 0
    error: str | None = None


def main(
    *, settings: Annotated[BenchServeSettings, Parameter(name="*")] = BenchServeSettings()
) -> int:
    """Measure a running server, over REST with streaming."""
    try:
        check_writable(settings.output_json)
        workload = make_workload(
            settings.dataset,
            num_prompts=settings.num_prompts,
            input_len=settings.input_len,
            output_len=settings.output_len,
            seed=settings.seed,
            vocab_size=settings.vocab_size,
        )
        model = settings.model
        if model is None:
            with OpenAIClient(settings) as client:
                model = client.first_model()
        with progress_bar("requests", len(workload)) as advance:
            started_s = time.perf_counter()
            measured = asyncio.run(_send_all(settings, model, workload, advance))
            duration_s = time.perf_counter() - started_s
        report(f"{model} at {settings.url}", summarize(measured, duration_s), settings.output_json)
    except (ServerError, StartupError) as error:
        print(f"octavo: {error}", file=sys.stderr)
        return 1
    errors = [each.error for each in measured if each.error]
    if errors:
        print(f"octavo: {len(errors)} requests failed, the first: {errors[0]}", file=sys.stderr)
    return 1 if errors else 0


def summarize(measured: Sequence[Measured], duration_s: float) -> dict[str, Any]:
    """Return the results; what failed counts as failed and nowhere else."""
    done = [each for each in measured if each.error is None]
    num_input_tokens = sum(each.num_input_tokens for each in done)
    num_output_tokens = sum(each.num_output_tokens for each in done)
    return {
        "completed": len(done),
        "failed": len(measured) - len(done),
        "duration_s": round(duration_s, 3),
        "input_tokens": num_input_tokens,
        "output_tokens": num_output_tokens,
        "requests_per_second": round(len(done) / duration_s, 3),
        "output_tokens_per_second": round(num_output_tokens / duration_s, 2),
        "total_tokens_per_second": round((num_input_tokens + num_output_tokens) / duration_s, 2),
        "ttft_ms": spread_ms([each.ttft_s for each in done]),
        "itl_ms": spread_ms([interval for each in done for interval in each.intervals_s]),
        "tpot_ms": spread_ms(
            [
                (each.latency_s - each.ttft_s) / (each.num_output_tokens - 1)
                for each in done
                if each.num_output_tokens > 1
            ]
        ),
    }


async def _send_all(
    settings: BenchServeSettings,
    model: str,
    workload: Sequence[BenchPrompt],
    advance: Callable[[], None],
) -> list[Measured]:
    """Send each prompt when its time has come; return what was measured, in their order."""
    draw = random.Random(settings.seed)
    places = asyncio.Semaphore(settings.max_concurrency or len(workload))
    async with (
        httpx.AsyncClient(
            base_url=api_url(settings.url),
            headers=headers(settings.api_key),
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=None),
        ) as client,
        asyncio.TaskGroup() as group,
    ):

        async def send(prompt: BenchPrompt) -> Measured:
            async with places:
                measured = await _send(client, settings.url, model, prompt)
            advance()
            return measured

        tasks = []
        due_s = time.perf_counter()
        for prompt in workload:
            tasks.append(group.create_task(send(prompt)))
            if math.isfinite(settings.request_rate):
                # A Poisson process. By the clock: a sleep that lasts too long delays no later one.
                due_s += draw.expovariate(settings.request_rate)
                await asyncio.sleep(due_s - time.perf_counter())
    return [task.result() for task in tasks]


async def _send(client: httpx.AsyncClient, url: str, model: str, prompt: BenchPrompt) -> Measured:
    """Send one request and note when its chunks come."""
    body = {
        "model": model,
        "prompt": prompt.prompt,
        "max_tokens": prompt.output_len,
        # So many tokens were asked for; servers that do not know this end where the model does.
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    measured = Measured()
    started_s = time.perf_counter()
    try:
        async with client.stream("POST", "completions", json=body) as response:
            if response.is_error:
                await response.aread()
                raise ServerError(refusal(response))
            await _read(response, measured, started_s)
    except ServerError as error:
        measured.error = str(error)
    except httpx.HTTPError as error:
        measured.error = unreachable(url, error)
    return measured


async def _read(response: httpx.Response, measured: Measured, started_s: float) -> None:
    """Read the stream to its end; raises ServerError if it does not say how many tokens it had."""
    arrivals_s: list[float] = []
    async for line in response.aiter_lines():
        if (chunk := read_chunk(line)) is None:
            continue
        if chunk.text:
            arrivals_s.append(time.perf_counter() - started_s)
        if chunk.num_output_tokens is not None:
            measured.num_input_tokens = chunk.num_prompt_tokens or 0
            measured.num_output_tokens = chunk.num_output_tokens
    if not measured.num_output_tokens:
        raise ServerError("the server sent no usage with its stream, so tokens cannot be counted.")
    # Tokens may all be special ones, which have no text.
    arrivals_s = arrivals_s or [time.perf_counter() - started_s]
    measured.ttft_s, measured.latency_s = arrivals_s[0], arrivals_s[-1]
    measured.intervals_s = [later - earlier for earlier, later in itertools.pairwise(arrivals_s)]
