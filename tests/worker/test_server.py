"""The worker as a process, with the mock, against a scheduler that a test scripts."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from octavo.v1 import step_pb2
from tests.worker.plans import added, plan
from tests.worker.test_mock_runner import expected_tokens
from tests.worker.test_scheduler_client import TIMEOUT_S, ScriptedScheduler

OCTAVO = Path(sys.executable).with_name("octavo")

pytestmark = pytest.mark.slow


@asynccontextmanager
async def worker(directory: Path, *flags: str) -> AsyncIterator[tuple[ScriptedScheduler, Process]]:
    """Start `octavo worker --mock`, with the small vocabulary that expected_tokens knows.

    It logs what is wrong, and nothing else.
    """
    endpoint = f"ipc://{directory}/workers.sock"
    scheduler = ScriptedScheduler(endpoint)
    process = await asyncio.create_subprocess_exec(
        *(OCTAVO, "worker", "--mock", "--scheduler-endpoint", endpoint, "--block-size", "4"),
        *("--mock-vocab-size", "1000", "--log-level", "warning", *flags),
        stderr=PIPE,
    )
    try:
        yield scheduler, process
    finally:
        scheduler.close()
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ended(process: Process) -> tuple[int | None, list[str]]:
    """Wait for the end; return the status and the lines of the log."""
    _, stderr = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    return process.returncode, stderr.decode().splitlines()


def first_plan() -> step_pb2.SchedulerFrame:
    first = plan(1, [(0, 2, 1)])
    first.added_rows.append(added(0, [5, 6], [0]))
    return step_pb2.SchedulerFrame(plan=first)


async def test_it_runs_plans_and_ends_quietly_on_sigterm(tmp_path: Path) -> None:
    async with worker(tmp_path) as (scheduler, process):
        await scheduler.welcome(epoch=1)
        await scheduler.send(first_plan())
        result = (await scheduler.receive("result")).result
        assert list(result.token_ids) == expected_tokens([5, 6], 1, seed=0)
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == (0, [])


async def test_sigterm_lets_the_running_step_finish(tmp_path: Path) -> None:
    # Longer than two heartbeats, so that one of them is sent from within the step.
    async with worker(tmp_path, "--mock-step-s", "1.2") as (scheduler, process):
        await scheduler.welcome(epoch=1)
        await scheduler.send(first_plan())
        beat = step_pb2.Heartbeat()
        while beat.phase != step_pb2.WORKER_PHASE_FORWARD:
            beat = (await scheduler.receive("heartbeat")).heartbeat
        process.send_signal(signal.SIGTERM)
        assert (await scheduler.receive("result")).result.step_id == 1
        assert await ended(process) == (0, [])


async def test_a_refused_worker_ends_with_the_reason(tmp_path: Path) -> None:
    async with worker(tmp_path) as (scheduler, process):
        await scheduler.receive("ready")
        refused = step_pb2.WorkerRefused(reason="protocol version: 1 here, 2 there")
        await scheduler.send(step_pb2.SchedulerFrame(refused=refused))
        status, lines = await ended(process)
        assert status == 1
        assert len(lines) == 1
        assert "the scheduler refused this worker: protocol version: 1 here, 2 there" in lines[0]


async def test_a_refused_worker_ends_though_its_step_hangs(tmp_path: Path) -> None:
    hangs = "worker.before_step=delay:600"
    async with worker(tmp_path, "--failpoints", hangs) as (scheduler, process):
        await scheduler.welcome(epoch=1)
        await scheduler.send(first_plan())
        beat = step_pb2.Heartbeat()
        while beat.phase != step_pb2.WORKER_PHASE_FORWARD:
            beat = (await scheduler.receive("heartbeat")).heartbeat
        refused = step_pb2.WorkerRefused(reason="stuck")
        await scheduler.send(step_pb2.SchedulerFrame(refused=refused))
        status, lines = await ended(process)
        assert status == 1
        assert len(lines) == 1
        assert "refused by the scheduler, and the step does not end" in lines[0]


async def test_a_failing_step_ends_the_worker_with_one_line(tmp_path: Path) -> None:
    async with worker(tmp_path, "--failpoints", "worker.before_step=raise") as (scheduler, process):
        await scheduler.welcome(epoch=1)
        await scheduler.send(first_plan())
        status, lines = await ended(process)
        assert status == 1
        assert len(lines) == 1
        assert "step 1 of 1 rows failed: FailpointTriggered" in lines[0]


async def test_the_mock_needs_no_torch() -> None:
    code = "import sys, octavo.worker.server; assert 'torch' not in sys.modules"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
