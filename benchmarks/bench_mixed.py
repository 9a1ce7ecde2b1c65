"""What streams that are being answered feel of a long prompt that comes in between (W8).

    python -m benchmarks.bench_mixed [--num-streams 31 --long-len 4096 ...]

Three runs over REST: the long prompt alone, the streams alone, and both, the long prompt once all
streams have begun. ITL is the time between two tokens of one stream while the prompt is computed;
its p99 without the prompt tells how far the machine alone lets it vary. Tokens that arrive together
share their time: one that is half a character is sent with the next. Throughput is that of both, as
a share of what they reach one after the other.
"""

import asyncio
import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import cyclopts
import numpy as np

from .bench_serving_path import running_server
from .light_client import CountedStream, Stream, open_counted_stream, open_stream
from .peers.engines import KV_CACHE_BYTES

_MODEL = "demo"
_TOKEN_IDS = range(1000, 30_000)
_BEGUN = 4
"""Arrivals of each stream before the long prompt is sent."""
_POLL_S = 0.005


@dataclass(frozen=True, kw_only=True)
class Workload:
    num_streams: int
    input_len: int
    output_len: int
    long_len: int
    long_output_len: int


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """One round; what it costs, in the terms of the bar."""

    itl_p50_alone_ms: float
    itl_p99_alone_ms: float
    itl_p99_mixed_ms: float
    itl_max_mixed_ms: float
    ttft_alone_ms: float
    ttft_mixed_ms: float
    throughput_share: float

    @property
    def itl_ratio(self) -> float:
        return self.itl_p99_mixed_ms / self.itl_p50_alone_ms

    @property
    def ttft_ratio(self) -> float:
        return self.ttft_mixed_ms / self.ttft_alone_ms


def main(
    *,
    num_streams: int = 31,
    input_len: int = 64,
    output_len: int = 256,
    long_len: int = 4096,
    long_output_len: int = 16,
    rounds: int = 3,
    dtype: str = "bfloat16",
    quantization: str | None = None,
    output_json: Path | None = None,
) -> None:
    """Measure `rounds` times on one server; medians count.

    Args:
        num_streams: that decode.
        input_len: tokens of their prompts.
        output_len: tokens of their outputs; they must outlast the long prompt.
        long_len: tokens of the long prompt.
        long_output_len: tokens of its output.
        rounds: measurements.
        dtype: of weights and activations.
        quantization: as for `octavo serve`; unset: none.
        output_json: file for the result.
    """
    workload = Workload(
        num_streams=num_streams,
        input_len=input_len,
        output_len=output_len,
        long_len=long_len,
        long_output_len=long_output_len,
    )
    flags = ["--dtype", dtype, "--kv-cache-memory-bytes", str(KV_CACHE_BYTES)]
    flags += [] if quantization is None else ["--quantization", quantization]
    with running_server(flags, {}) as server:
        measured = [asyncio.run(measure(server.port, workload, i)) for i in range(rounds + 1)][1:]
    result = summarize(measured)
    for name, value in result.items():
        print(f"{name:<20}{value:10.3f}")
    if output_json is not None:
        report = {
            "workload": asdict(workload),
            "dtype": quantization or dtype,
            "cores": os.cpu_count(),
            "medians": result,
            "rounds": [asdict(each) for each in measured],
        }
        output_json.write_text(json.dumps(report, indent=2) + "\n")


def summarize(measured: Sequence[Mixed]) -> dict[str, Any]:
    names = [*asdict(measured[0]), "itl_ratio", "ttft_ratio"]
    return {name: round(median(getattr(each, name) for each in measured), 3) for name in names}


async def measure(port: int, workload: Workload, seed: int) -> Mixed:
    """Run both parts alone and together; no two rounds have a prompt in common."""
    draw = random.Random(seed)
    clock = asyncio.get_running_loop().time

    started_s = clock()
    long = await open_long(port, workload, draw)
    await long.finished(workload.long_output_len)
    alone_s = clock() - started_s
    ttft_alone_s = long.arrivals_s[0] - long.sent_s

    started_s = clock()
    streams = await open_streams(port, workload, draw)
    await finish(streams, workload)
    alone_s += clock() - started_s
    begun_s = max(stream.arrivals_s[_BEGUN - 1] for stream in streams)
    itl_alone_s = intervals_s(streams, begun_s, clock())

    started_s = clock()
    streams = await open_streams(port, workload, draw)
    while min(len(stream.arrivals_s) for stream in streams) < _BEGUN:
        await asyncio.sleep(_POLL_S)
    long = await open_long(port, workload, draw)
    await long.finished(workload.long_output_len)
    await finish(streams, workload)
    together_s = clock() - started_s
    itl_mixed_s = intervals_s(streams, long.sent_s, long.arrivals_s[0])

    return Mixed(
        itl_p50_alone_ms=1e3 * float(np.percentile(itl_alone_s, 50)),
        itl_p99_alone_ms=1e3 * float(np.percentile(itl_alone_s, 99)),
        itl_p99_mixed_ms=1e3 * float(np.percentile(itl_mixed_s, 99)),
        itl_max_mixed_ms=1e3 * max(itl_mixed_s),
        ttft_alone_ms=1e3 * ttft_alone_s,
        ttft_mixed_ms=1e3 * (long.arrivals_s[0] - long.sent_s),
        throughput_share=alone_s / together_s,
    )


def intervals_s(streams: Sequence[CountedStream], begin_s: float, end_s: float) -> list[float]:
    """Return the times between tokens of each stream that end after `begin_s`.

    The interval that `end_s` lies in counts: it is the longest, where a prompt stops all streams.
    """
    intervals = []
    for stream in streams:
        before_s, before = stream.arrivals_s[0], stream.num_tokens[0]
        for arrival_s, count in zip(stream.arrivals_s, stream.num_tokens, strict=True):
            if (num_new := count - before) <= 0:
                # The first, or the end of the stream, which brings no token.
                continue
            if arrival_s > begin_s and before_s < end_s:
                intervals += [(arrival_s - before_s) / num_new] * num_new
            before_s, before = arrival_s, count
    return intervals


async def open_streams(port: int, workload: Workload, draw: random.Random) -> list[CountedStream]:
    prompts = [draw.choices(_TOKEN_IDS, k=workload.input_len) for _ in range(workload.num_streams)]
    opened = (open_counted_stream(port, _MODEL, prompt, workload.output_len) for prompt in prompts)
    return await asyncio.gather(*opened)


async def open_long(port: int, workload: Workload, draw: random.Random) -> Stream:
    prompt = draw.choices(_TOKEN_IDS, k=workload.long_len)
    return await open_stream(port, _MODEL, prompt, workload.long_output_len)


async def finish(streams: Sequence[Stream], workload: Workload) -> None:
    for stream in streams:
        await stream.finished(workload.output_len)


if __name__ == "__main__":
    cyclopts.run(main)
