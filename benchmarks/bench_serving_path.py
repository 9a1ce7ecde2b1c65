"""What serving costs: CPU time per output token in each process, and throughput beside LLM's.

    python -m benchmarks.bench_serving_path [--num-streams 64 --input-len 128 --output-len 128 ...]

All processes share the machine, so each microsecond of gateway, router, scheduler and client is one
that the worker does not compute in. The mock worker computes nothing for `--mock-step-ms`: what the
others need is then seen alone. The demo model runs through REST and offline, one after the other.
"""

import asyncio
import contextlib
import json
import os
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cyclopts
import psutil

from .light_client import stream_all
from .octavo_server import octavo_server
from .peers.engines import KV_CACHE_BYTES, running_octavo
from .peers.measurement import check
from .peers.workloads import OfflineWorkload

_ROLES = ("gateway", "router", "scheduler", "worker")
_MODEL = "demo"
# Of all vocabularies, and no special tokens.
_TOKEN_IDS = range(100, 30_000)


@dataclass(frozen=True, kw_only=True)
class Workload:
    num_streams: int
    input_len: int
    output_len: int

    def prompts(self, seed: int) -> list[list[int]]:
        """Return prompts that have no prefix in common."""
        draw = random.Random(seed)
        return [draw.choices(_TOKEN_IDS, k=self.input_len) for _ in range(self.num_streams)]


@dataclass(frozen=True, kw_only=True)
class Served:
    """One round through REST."""

    output_tokens_per_second: float
    tokens_per_event: float
    cpu_us_per_token: Mapping[str, float]
    """By process; of the whole machine's cores together."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running `octavo serve`."""

    port: int
    roles: Mapping[str, psutil.Process]

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each process, and this one as the client, has used."""
        times = {role: process.cpu_times() for role, process in self.roles.items()}
        used = {role: each.user + each.system for role, each in times.items()}
        return used | {"client": time.process_time()}


def main(
    *,
    num_streams: int = 64,
    input_len: int = 128,
    output_len: int = 128,
    mock_step_ms: float = 20.0,
    rounds: int = 3,
    mock_only: bool = False,
    output_json: Path | None = None,
) -> None:
    """Measure the mock worker, and the demo model in bfloat16, served and offline.

    Args:
        num_streams: requests, all sent at once.
        input_len: tokens of each prompt.
        output_len: tokens of each output.
        mock_step_ms: time of a step of the mock worker.
        rounds: measurements of each; the one with the median throughput counts.
        mock_only: leave the demo model out.
        output_json: file for the result.
    """
    workload = Workload(num_streams=num_streams, input_len=input_len, output_len=output_len)
    result: dict[str, Any] = {
        "workload": asdict(workload),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "mock_step_ms": mock_step_ms,
    }
    mock = {"OCTAVO_MOCK_STEP_S": str(mock_step_ms / 1000)}
    result["mock"] = show("mock worker", serve(workload, rounds, ("--mock",), mock))
    if not mock_only:
        offline = generate_offline(workload, rounds)
        flags = ("--dtype", "bfloat16", "--kv-cache-memory-bytes", str(KV_CACHE_BYTES))
        served = serve(workload, rounds, flags, {})
        ratio = served.output_tokens_per_second / offline
        result[_MODEL] = show(f"{_MODEL}, bfloat16", served)
        result["offline_output_tokens_per_second"] = offline
        result["served_to_offline"] = round(ratio, 3)
        print(f"offline {offline:.1f} output tok/s; served is {ratio:.0%} of it")
    if output_json is not None:
        output_json.write_text(json.dumps(result, indent=2) + "\n")


def serve(
    workload: Workload, rounds: int, flags: Sequence[str], environment: Mapping[str, str]
) -> Served:
    """Run the workload once to warm up, then `rounds` times; return the median round."""
    with running_server((*flags, "--max-num-seqs", str(workload.num_streams)), environment) as it:
        results = [measure(it, workload, seed) for seed in range(rounds + 1)][1:]
    results.sort(key=lambda served: served.output_tokens_per_second)
    return results[len(results) // 2]


def measure(server: Server, workload: Workload, seed: int) -> Served:
    prompts = workload.prompts(seed)
    cpu_before, started_s = server.cpu_s(), time.perf_counter()
    streamed = asyncio.run(stream_all(server.port, _MODEL, prompts, workload.output_len))
    duration_s, cpu_after = time.perf_counter() - started_s, server.cpu_s()
    num_tokens = streamed.num_output_tokens
    return Served(
        output_tokens_per_second=round(num_tokens / duration_s, 1),
        tokens_per_event=round(num_tokens / streamed.num_events, 3),
        cpu_us_per_token={
            role: round(1e6 * (cpu_after[role] - cpu_before[role]) / num_tokens, 1)
            for role in cpu_after
        },
    )


@contextlib.contextmanager
def running_server(flags: Sequence[str], environment: Mapping[str, str]) -> Iterator[Server]:
    """Run `octavo serve` with the demo model."""
    with octavo_server(_MODEL, flags, environment) as (port, pid):
        yield Server(port, find_roles(pid))


def find_roles(pid: int) -> dict[str, psutil.Process]:
    """Return the processes of a cluster by what they are."""
    processes = psutil.Process(pid).children()
    return {role: next(p for p in processes if role in p.cmdline()) for role in _ROLES}


def generate_offline(workload: Workload, rounds: int) -> float:
    """Return the output tokens per second of LLM, warm; that of the median round."""
    offline = OfflineWorkload(
        name="offline",
        num_requests=workload.num_streams,
        input_len=workload.input_len,
        output_len=workload.output_len,
    )
    with running_octavo(_MODEL, "bfloat16", {}) as engine:
        runs = []
        for seed in range(rounds + 1):
            requests = offline.requests(seed)
            runs.append(engine.run(offline, requests, seed))
            check(runs[-1], offline, requests, "LLM")
    return statistics.median_high(round(run.tokens_per_s(offline), 1) for run in runs[1:])


def show(title: str, served: Served) -> dict[str, Any]:
    """Print what was measured, and return it for the result."""
    print(f"{title}: {served.output_tokens_per_second:.1f} output tok/s, ", end="")
    print(f"{served.tokens_per_event:.2f} tokens an event")
    for role, cpu_us in served.cpu_us_per_token.items():
        print(f"  {role:<10}{cpu_us:8.1f} us of CPU a token")
    path_us = sum(us for role, us in served.cpu_us_per_token.items() if role != "worker")
    print(f"  all but the worker {path_us:.1f}")
    return asdict(served)


if __name__ == "__main__":
    cyclopts.run(main)
