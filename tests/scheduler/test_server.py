"""Scheduler and mock workers as processes: they start, are killed, and end as they should."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from octavo.v1 import scheduling_pb2
from tests.scheduler.engine import submit_request
from tests.scheduler.socket_worker import TIMEOUT_S
from tests.scheduler.test_service import ROUTER_ID, RouterStub
from tests.worker.test_mock_runner import expected_tokens

OCTAVO = Path(sys.executable).with_name("octavo")
PROMPT = [5, 6, 7, 8, 9, 10]

pytestmark = pytest.mark.slow


class Processes:
    """Starts processes of one engine in a private directory, and ends them all."""

    def __init__(self, directory: Path) -> None:
        self.address = f"unix:{directory}/grpc.sock"
        self._endpoint = f"ipc://{directory}/workers.sock"
        self._started: list[Process] = []

    async def scheduler(self, *flags: str) -> Process:
        return await self._start(
            *("scheduler", "--listen", self.address, "--worker-endpoint", self._endpoint),
            *("--served-model-name", "mock", *flags),
        )

    async def worker(self, *flags: str) -> Process:
        return await self._start(
            *("worker", "--mock", "--scheduler-endpoint", self._endpoint),
            *("--mock-vocab-size", "1000", "--mock-step-s", "0.01", *flags),
        )

    async def journaling_worker(self, journal: Path, max_tokens: int) -> Process:
        return await self._start(
            *("-m", "tests.worker.journaling_worker", self._endpoint, str(journal)),
            str(max_tokens),
            program=Path(sys.executable),
        )

    async def _start(self, *command: str, program: Path = OCTAVO) -> Process:
        process = await asyncio.create_subprocess_exec(program, *command, stderr=PIPE)
        self._started.append(process)
        return process

    async def end(self) -> None:
        for process in self._started:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Processes]:
    processes = Processes(tmp_path)
    try:
        async with asyncio.timeout(6 * TIMEOUT_S):
            yield processes
    finally:
        await processes.end()


@asynccontextmanager
async def attached(processes: Processes) -> AsyncIterator[RouterStub]:
    """Attach a router; waits until scheduler and worker are ready."""
    async with grpc.aio.insecure_channel(processes.address) as channel:
        async with asyncio.timeout(TIMEOUT_S):
            await channel.channel_ready()
        router = RouterStub(channel)
        await router.attach()
        yield router


def request(*, max_tokens: int, n: int = 1, seed: int = 0) -> scheduling_pb2.SubmitRequest:
    return submit_request(PROMPT, max_tokens=max_tokens, n=n, seed=seed, router_id=ROUTER_ID)


async def ended(process: Process) -> tuple[int | None, list[str]]:
    """Wait for the end; return the status and the lines of the log."""
    _, stderr = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    return process.returncode, stderr.decode().splitlines()


@pytest.mark.parametrize("mode", ["--async-scheduling", "--no-async-scheduling"])
async def test_streams_survive_workers_that_are_killed(processes: Processes, mode: str) -> None:
    await processes.scheduler(mode)
    worker = await processes.worker()
    async with attached(processes) as router, router.receiving() as streams:
        greedy, sampled = request(max_tokens=60), request(max_tokens=60, n=2, seed=9)
        for submitted in (greedy, sampled):
            await router.submit(submitted)
        for count in (5, 20):
            await streams.until_tokens(greedy, count)
            worker.kill()
            worker = await processes.worker()
        await streams.until_finished(greedy, sampled)
    assert streams.tokens[greedy.request_key, 0] == expected_tokens(PROMPT, 60, 0)
    for index in range(2):
        tokens = streams.tokens[sampled.request_key, index]
        assert tokens == expected_tokens(PROMPT, 60, 9 + index)
    ends = [streams.finished[sampled.request_key, index] for index in range(2)]
    (usage,) = [end.usage for end in ends if end.HasField("usage")]
    assert usage.num_resumptions == 2


@pytest.mark.parametrize("place", ["worker.before_step", "worker.after_step"])
async def test_a_worker_may_die_at_any_point_of_a_step(processes: Processes, place: str) -> None:
    await processes.scheduler()
    dying = await processes.worker("--failpoints", f"{place}=exit")
    async with attached(processes) as router, router.receiving() as streams:
        submitted = request(max_tokens=10)
        await router.submit(submitted)
        await dying.wait()
        await processes.worker()
        await streams.until_finished(submitted)
    assert streams.tokens[submitted.request_key, 0] == expected_tokens(PROMPT, 10, 0)


async def test_every_plan_is_with_the_worker_before_the_step_before_it_ends(
    processes: Processes, tmp_path: Path
) -> None:
    journal, max_tokens = tmp_path / "journal", 40
    await processes.scheduler("--max-num-batched-tokens", "4")
    await processes.journaling_worker(journal, max_tokens)
    requests = [request(max_tokens=max_tokens, n=n, seed=n - 1) for n in (1, 3, 1)]
    async with attached(processes) as router, router.receiving() as streams:
        await router.submit(requests[0])
        await streams.until_tokens(requests[0], 5)
        for submitted in requests[1:]:
            await router.submit(submitted)
        await streams.until_finished(*requests)
        await router.submit(later := request(max_tokens=max_tokens))
        await streams.until_finished(later)
    assert streams.tokens[later.request_key, 0] == expected_tokens(PROMPT, max_tokens, 0)
    events = [tuple(line.split()) for line in journal.read_text().splitlines()]
    steps = [int(step_id) for event, step_id in events if event == "ended"]
    # Where all outputs there are have ended, there is nothing to plan.
    without_next = {int(step_id) for event, step_id in events if event == "last"}
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 2 * max_tokens
    assert steps[-1] in without_next and len(without_next) <= len(requests) + 1
    for step_id in set(steps) - without_next:
        later_plan = events.index(("received", str(step_id + 1)))
        later_start = events.index(("started", str(step_id + 1)))
        assert later_plan < later_start < events.index(("ended", str(step_id)))


async def test_a_worker_that_stands_still_for_a_moment_is_not_lost(processes: Processes) -> None:
    scheduler = await processes.scheduler()
    worker = await processes.worker()
    async with attached(processes) as router, router.receiving() as streams:
        submitted = request(max_tokens=30)
        await router.submit(submitted)
        await streams.until_tokens(submitted, 5)
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        worker.send_signal(signal.SIGCONT)
        await streams.until_finished(submitted)
    scheduler.send_signal(signal.SIGTERM)
    status, lines = await ended(scheduler)
    assert status == 0
    assert not any("lost a worker" in line for line in lines)


async def test_a_new_scheduler_leads_the_worker_of_the_old_one(processes: Processes) -> None:
    old = await processes.scheduler()
    await processes.worker()
    async with attached(processes) as router:
        await router.submit(request(max_tokens=500))
        old.kill()
        await old.wait()
    await processes.scheduler()
    async with attached(processes) as router, router.receiving() as streams:
        submitted = request(max_tokens=10)
        await router.submit(submitted)
        await streams.until_finished(submitted)
    assert streams.tokens[submitted.request_key, 0] == expected_tokens(PROMPT, 10, 0)


async def test_sigterm_lets_running_requests_finish(processes: Processes) -> None:
    scheduler = await processes.scheduler()
    await processes.worker()
    async with attached(processes) as router:
        submitted = request(max_tokens=40)
        await router.submit(submitted)
        scheduler.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            await router.receive()
        assert router.streams.tokens[submitted.request_key, 0] == expected_tokens(PROMPT, 40, 0)
        assert await router.call.code() is grpc.StatusCode.OK
    status, lines = await ended(scheduler)
    assert status == 0
    assert not any("error" in line.lower() for line in lines)


async def test_requests_that_outlive_the_drain_are_ended(processes: Processes) -> None:
    scheduler = await processes.scheduler("--drain-timeout-s", "0.2")
    await processes.worker()
    async with attached(processes) as router, router.receiving():
        await router.submit(request(max_tokens=5000))
        scheduler.send_signal(signal.SIGTERM)
        status, _ = await ended(scheduler)
        assert status == 0


async def test_a_second_sigterm_ends_at_once(processes: Processes) -> None:
    scheduler = await processes.scheduler("--drain-timeout-s", "600")
    await processes.worker()
    async with attached(processes) as router:
        await router.submit(request(max_tokens=5000))
        scheduler.send_signal(signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT_S):
            while not (await router.call.read()).load.is_draining:
                pass
        scheduler.send_signal(signal.SIGTERM)
        status, _ = await ended(scheduler)
        assert status == 130


async def test_a_directory_that_others_can_enter_is_refused(
    processes: Processes, tmp_path: Path
) -> None:
    os.chmod(tmp_path, 0o755)
    status, lines = await ended(await processes.scheduler())
    assert status == 1
    assert len(lines) == 1
    assert "others can enter" in lines[0]


async def test_an_address_that_cannot_be_bound_is_told(processes: Processes) -> None:
    processes.address = "unix:/nowhere/at/all.sock"
    status, lines = await ended(await processes.scheduler())
    assert status == 1
    assert "cannot listen on unix:/nowhere/at/all.sock" in lines[-1]


async def test_the_scheduler_needs_no_torch() -> None:
    code = "import sys, octavo.scheduler.server; assert 'torch' not in sys.modules"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
