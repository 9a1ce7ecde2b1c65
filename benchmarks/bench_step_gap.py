"""How long a device waits between two steps: for the scheduler, the sockets, and the worker.

    python -m benchmarks.bench_step_gap [--num-running 1 64 256] [--output-json FILE]

Scheduler and worker are the processes that serve; this one reads the tokens as a router does. The
mock's device runs beside the CPU, and takes 5 ms for each step: what steps take beyond that, it is
idle. With a plan sent ahead (the default) nothing should be left of the time between; without
(--no-async-scheduling) the device waits for everything.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from octavo.grpc_server import CHANNEL_OPTIONS
from octavo.v1 import scheduling_pb2, scheduling_pb2_grpc
from octavo.version import PROTOCOL_VERSION

from . import by_num_running

STEP_S = 0.005
NUM_WARM_UP = 100
NUM_STEPS = 600
NUM_PROMPT_TOKENS = 8
ROUTER_ID = bytes(16)
_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 10


@dataclass(frozen=True)
class Gap:
    """What steps take beyond the device's own time."""

    num_running: int
    ahead_us: float
    ahead_percent: float
    """Of the time of a step."""
    plain_us: float
    plain_percent: float


def measure(num_running: int) -> Gap:
    """Return the mean gap of steps of `num_running` rows, one token each."""
    ahead_s = step_s(num_running, "--async-scheduling") - STEP_S
    plain_s = step_s(num_running, "--no-async-scheduling") - STEP_S
    return Gap(
        num_running,
        round(1e6 * ahead_s, 1),
        round(100 * ahead_s / STEP_S, 2),
        round(1e6 * plain_s, 1),
        round(100 * plain_s / STEP_S, 2),
    )


def step_s(num_running: int, mode: str) -> float:
    """Return the mean seconds of a step, from processes of their own."""
    with tempfile.TemporaryDirectory() as directory:
        address, endpoint = f"unix:{directory}/grpc.sock", f"ipc://{directory}/worker.sock"
        limit = ("--max-num-seqs", str(num_running), "--log-level", "warning")
        scheduler = ("--listen", address, "--worker-endpoint", endpoint, mode, *limit)
        worker = ("--mock", "--mock-step-s", str(STEP_S), "--scheduler-endpoint", endpoint, *limit)
        with (
            running("scheduler", *scheduler, "--served-model-name", "mock"),
            running("worker", *worker),
        ):
            return asyncio.run(_step_s(address, num_running))


@contextmanager
def running(*arguments: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-P", "-m", "octavo.cli", *arguments]) as process:
        try:
            yield
        finally:
            process.kill()
            process.wait(_STOP_TIMEOUT_S)


async def _step_s(address: str, num_running: int) -> float:
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        async with asyncio.timeout(_START_TIMEOUT_S):
            await channel.channel_ready()
        stub = scheduling_pb2_grpc.SchedulingStub(channel)
        call = stub.Attach()
        hello = scheduling_pb2.Hello(
            router_id=ROUTER_ID, incarnation=1, protocol_version=PROTOCOL_VERSION
        )
        await call.write(scheduling_pb2.AttachRequest(hello=hello))
        await call.read()
        await asyncio.gather(*(stub.Submit(request) for request in _requests(num_running)))
        return await _mean_step_s(call, num_running)


def _requests(num_running: int) -> Sequence[scheduling_pb2.SubmitRequest]:
    """Return requests that outlast the measurement."""
    return [
        scheduling_pb2.SubmitRequest(
            request_key=number.to_bytes(16),
            router_id=ROUTER_ID,
            prompt_token_ids=[100 + number] * NUM_PROMPT_TOKENS,
            n=1,
            seeds=[0],
            max_tokens=4 * (NUM_WARM_UP + NUM_STEPS),
        )
        for number in range(1, num_running + 1)
    ]


async def _mean_step_s(call: Any, num_running: int) -> float:
    """Read tokens until enough steps of all rows have passed; return the mean time of one."""
    num_left = NUM_WARM_UP * num_running
    while num_left > 0:
        num_left -= len((await call.read()).outputs.token_ids)
    started_s, num_tokens = time.perf_counter(), 0
    while num_tokens < NUM_STEPS * num_running:
        num_tokens += len((await call.read()).outputs.token_ids)
    return (time.perf_counter() - started_s) * num_running / num_tokens


def main() -> None:
    headings = ("running", "ahead µs", "ahead %", "plain µs", "plain %")
    by_num_running.run("step_gap", __doc__, headings, measure, (1, 64, 256))


if __name__ == "__main__":
    main()
