"""Times a plan on its way: the scheduler's socket → the worker's step loop, over ZeroMQ ipc.

    python -m benchmarks.bench_plan_latency [--num-running 1 64 256 1024] [--output-json FILE]

Two processes with the real ends, WorkerClient and SchedulerClient. A plan counts from the call that
encodes and sends it until the worker's step loop has it, decoded; CLOCK_MONOTONIC is the same in
both. The worker waits for each plan, as it does when its steps are shorter than a turn of the
scheduler. The way back is that of a result as large.

Beside it stands the machine's own limit: as many bytes, sent at the same pace between two bare
sockets whose threads do nothing but wait. Three threads have to be woken on the way, two of them
libzmq's.
"""

import asyncio
import multiprocessing
import random
import statistics
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass

import uvloop
import zmq
from prometheus_client import CollectorRegistry

from octavo.scheduler.metrics import StepTimes
from octavo.scheduler.worker_client import WorkerClient
from octavo.v1 import step_pb2
from octavo.worker.mock_runner import MockRunner
from octavo.worker.scheduler_client import SchedulerClient
from octavo.worker.settings import WorkerSettings

from . import by_num_running
from .bench_scheduler_step import answer, filled_scheduler, run_step

NUM_PLANS = 1000
NUM_WARM_UP = 100
PAUSE_S = 0.002


@dataclass(frozen=True)
class Latency:
    """One way each, in microseconds."""

    num_running: int
    plan_bytes: int
    plan_p50_us: float
    plan_p99_us: float
    result_p50_us: float
    result_p99_us: float
    hop_p50_us: float
    """Of as many bytes as a plan has, between bare sockets."""


def work(endpoint: str) -> None:
    """Be a worker that answers each plan at once, until ended."""
    uvloop.run(_work(endpoint))


async def _work(endpoint: str) -> None:
    ready = MockRunner(WorkerSettings(scheduler_endpoint=endpoint, mock=True)).describe()
    async with SchedulerClient(endpoint, ready, rank=0) as scheduler:
        await scheduler.welcomed()
        rng = random.Random(0)
        while True:
            plan = await scheduler.next_plan_at_once()
            received_ns = time.monotonic_ns()
            result = step_pb2.StepResult.FromString(answer(plan, rng))
            # The field for what receiving took holds when it was done; the other, when it is sent.
            result.timings.receive_ns = received_ns
            result.timings.copy_ns = time.monotonic_ns()
            scheduler.send_result(result)


def measure(num_running: int) -> Latency:
    """Return the latency of plans of `num_running` rows."""
    with tempfile.TemporaryDirectory() as directory:
        return uvloop.run(_measure(num_running, f"ipc://{directory}/worker.sock"))


async def _measure(num_running: int, endpoint: str) -> Latency:
    plans_us, results_us, num_bytes = [], [], 0
    scheduler, rng = filled_scheduler(num_running, random.Random(num_running)), random.Random(0)
    run_step(scheduler, rng)
    plan = run_step(scheduler, rng)
    with closing(WorkerClient(endpoint, StepTimes(CollectorRegistry()))) as workers:
        worker = multiprocessing.get_context("spawn").Process(target=work, args=(endpoint,))
        worker.start()
        try:
            await workers.ready()
            for step_id in range(1, NUM_WARM_UP + NUM_PLANS + 1):
                await asyncio.sleep(PAUSE_S)
                plan.epoch, plan.step_id = workers.epoch, step_id
                sent_ns = time.monotonic_ns()
                workers.send(plan)
                result = await workers.result()
                plans_us.append((result.timings.receive_ns - sent_ns) / 1e3)
                results_us.append((time.monotonic_ns() - result.timings.copy_ns) / 1e3)
            num_bytes = plan.ByteSize()
        finally:
            worker.terminate()
            worker.join()
    plan_p50, plan_p99 = _percentiles(plans_us[NUM_WARM_UP:])
    result_p50, result_p99 = _percentiles(results_us[NUM_WARM_UP:])
    hop_p50, _ = _percentiles(hop(num_bytes, f"{endpoint}.hop")[NUM_WARM_UP:])
    return Latency(num_running, num_bytes, plan_p50, plan_p99, result_p50, result_p99, hop_p50)


def note_arrivals(endpoint: str) -> None:
    """Answer each frame with the time at which it was there, until ended."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint)
        socket.send(b"ready")
        while True:
            socket.recv()
            socket.send(str(time.monotonic_ns()).encode())


def hop(num_bytes: int, endpoint: str) -> list[float]:
    """Return the microseconds that frames take from one process to another."""
    hops_us, frame = [], bytes(num_bytes)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(endpoint)
        peer = multiprocessing.get_context("spawn").Process(target=note_arrivals, args=(endpoint,))
        peer.start()
        try:
            identity, _ = socket.recv_multipart()
            for _ in range(NUM_WARM_UP + NUM_PLANS):
                time.sleep(PAUSE_S)
                sent_ns = time.monotonic_ns()
                socket.send_multipart([identity, frame])
                _, received_ns = socket.recv_multipart()
                hops_us.append((int(received_ns) - sent_ns) / 1e3)
        finally:
            peer.terminate()
            peer.join()
    return hops_us


def _percentiles(values: list[float]) -> tuple[float, float]:
    """Return p50 and p99."""
    return round(statistics.median(values), 1), round(sorted(values)[int(0.99 * len(values))], 1)


def main() -> None:
    headings = (
        "running",
        "bytes",
        "plan p50",
        "plan p99",
        "result p50",
        "result p99",
        "hop p50 µs",
    )
    by_num_running.run("plan_latency", __doc__, headings, measure, (1, 64, 256, 1024))


if __name__ == "__main__":
    main()
