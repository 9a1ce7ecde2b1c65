"""A model through all processes of a server: requests come at a rate, and clients see their tokens.

    python -m benchmarks.gpu_check.serving DRIVE         (serving_rows starts it)

Gateway, router, scheduler and worker as `octavo serve` starts them; the client counts what streams,
and parses none of it. Of a row's times the first token is counted from the sending of the request,
and the others from the one before, several of which may come at once.
"""

import asyncio
import random
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.light_client import Stream, StreamFailed, open_stream
from benchmarks.octavo_server import free_ports, octavo_server
from octavo.cluster import METRICS_OFFSETS

from .bars import AT_ONCE
from .child import write_row
from .engine import Drive
from .models import LLAMA_8B, ModelShape, write_model
from .report import Row, spread_row
from .scraped import Scrape, step_costs, wait_until_quiet
from .workloads import MAX_NUM_BATCHED_TOKENS, MAX_NUM_SEQS, Case, Workload, sharegpt

# So long requests come at each rate.
_SENDING_S = 6.0
# Requests a second, after all at once; what matters most comes first.
RATES = (32, 48, 16, 8)

_NUM_FILES = 65_536


def serving_rows(
    ceilings: tuple[float, float], limit_s: float, case: Case | None = None
) -> Iterator[Row]:
    """Measure one server, from all requests at once to few a second."""
    case = case or Case(LLAMA_8B, [sharegpt(1000), *map(_at_rate, RATES)])
    with TemporaryDirectory() as folder:
        directory = str(write_model(case.model, Path(folder)))
        yield from Drive(case, directory, ceilings).rows("serving", limit_s)


def _at_rate(requests_s: int) -> Workload:
    workload = sharegpt(round(requests_s * _SENDING_S))
    return Workload(workload.name, workload.lengths, requests_s)


def main() -> int:
    drive = Drive.from_json(sys.argv[1])
    case = drive.case
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_NUM_FILES, most), most))
    first = free_ports(len(METRICS_OFFSETS))[0]
    flags = _flags(case, first)
    started_s = time.perf_counter()
    with octavo_server(drive.directory, flags) as (port, _):
        start_s = time.perf_counter() - started_s
        ports = {name: first + offset for name, offset in METRICS_OFFSETS.items()}
        ports["gateway"] = port
        asyncio.run(_run(port, case.model, case.workloads[0].beginning(MAX_NUM_SEQS)))
        wait_until_quiet("worker", ports["worker"])
        for workload in case.workloads:
            before = Scrape.of(ports)
            row = asyncio.run(_run(port, case.model, workload))
            costs = step_costs(before, Scrape.of(ports))
            write_row({"model": case.model.name} | row | costs | {"start_s": round(start_s, 1)})
    return 0


def _flags(case: Case, metrics_port: int) -> list[str]:
    values: Mapping[str, object] = {
        "served-model-name": case.model.name,
        "load-format": "dummy",
        "dtype": "bfloat16",
        "max-num-seqs": MAX_NUM_SEQS,
        "max-num-batched-tokens": MAX_NUM_BATCHED_TOKENS,
        "max-model-len": max(workload.longest for workload in case.workloads),
        "metrics-port": metrics_port,
        "log-level": "warning",
        **{name.replace("_", "-"): value for name, value in case.options.items()},
    }
    flags = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    return [*flags, "--no-enable-prefix-caching"]


async def _run(port: int, model: ModelShape, workload: Workload) -> Row:
    """Send the requests when their time has come; tell what their clients saw."""
    draw = random.Random(0)
    clock = asyncio.get_running_loop().time
    prompts = workload.prompts(model.vocab_size)
    answers: list[asyncio.Task[Stream]] = []
    started_s = due_s = clock()
    for prompt, (_, num_output) in zip(prompts, workload.lengths, strict=True):
        answers.append(asyncio.create_task(_answer(port, model.name, prompt, num_output)))
        if workload.requests_s is not None:
            # A Poisson process. By the clock: a sleep that lasts too long delays no later one.
            due_s += draw.expovariate(workload.requests_s)
            await asyncio.sleep(due_s - clock())
    ended = await asyncio.gather(*answers, return_exceptions=True)
    duration_s = clock() - started_s
    streams = [each for each in ended if isinstance(each, Stream)]
    failures = [str(each) for each in ended if isinstance(each, BaseException)]
    num_tokens = sum(stream.num_output_tokens for stream in streams)
    row: Row = {
        "workload": workload.name,
        "requests_s": workload.requests_s or AT_ONCE,
        "completed": len(streams),
        "duration_s": round(duration_s, 3),
        "output_tok_s": round(num_tokens / duration_s, 1),
        **spread_row("ttft_ms", [stream.arrivals_s[0] - stream.sent_s for stream in streams]),
        **spread_row(
            "itl_ms",
            [later - one for stream in streams for one, later in pairwise(stream.arrivals_s)],
        ),
    }
    if failures:
        row["error"] = f"{len(failures)} requests failed, the first: {failures[0][:200]}"
    return row


async def _answer(port: int, model: str, prompt: Sequence[int], num_output: int) -> Stream:
    """Return the stream of one request at its end; raises StreamFailed, or OSError."""
    stream = await open_stream(port, model, prompt, num_output)
    await stream.finished(num_output)
    if not stream.arrivals_s:
        raise StreamFailed("no event came")
    return stream


if __name__ == "__main__":
    sys.exit(main())
