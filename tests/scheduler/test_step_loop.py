"""The step loop with the real core and a real socket: same tokens, whatever happens to whom."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from octavo.errors import RequestError, Unavailable
from octavo.scheduler.inbox import TOKENS_PER_TURN
from octavo.v1 import common_pb2, scheduling_pb2, step_pb2
from tests.scheduler.engine import ROUTER_ID, executing, running_engine, submit_request
from tests.scheduler.socket_worker import SocketWorker
from tests.worker.test_mock_runner import expected_tokens

LENGTH = common_pb2.FINISH_REASON_LENGTH
PROMPT = [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("overlapped", [True, False])
async def test_both_loops_give_the_tokens_of_the_model(tmp_path: Path, overlapped: bool) -> None:
    async with running_engine(tmp_path, overlapped=overlapped) as (engine, worker):
        requests = await engine.submit(
            submit_request(PROMPT, max_tokens=9),
            submit_request(range(100, 140), max_tokens=5),  # Computed in chunks of up to 16.
            submit_request(PROMPT[:3], max_tokens=12, n=2, seed=20),
            submit_request(range(200, 230), max_tokens=3),  # Waits for a row.
        )
        async with executing(worker):
            assert set(await engine.streams.until_finished(*requests)) == {LENGTH}
        first, chunked, sampled, waited = requests
        assert engine.tokens(first) == [expected_tokens(PROMPT, 9, 0)]
        assert engine.tokens(chunked) == [expected_tokens(list(range(100, 140)), 5, 0)]
        assert engine.tokens(sampled) == [
            expected_tokens(PROMPT[:3], 12, 20),
            expected_tokens(PROMPT[:3], 12, 21),
        ]
        assert engine.tokens(waited) == [expected_tokens(list(range(200, 230)), 3, 0)]
        engine.check_all_blocks_are_free()


async def test_the_overlapped_loop_is_one_plan_ahead_of_the_results(tmp_path: Path) -> None:
    async with running_engine(tmp_path, overlapped=True) as (engine, worker):
        (request,) = await engine.submit(submit_request(PROMPT, max_tokens=4))
        plans = [await worker.next_plan(), await worker.next_plan()]
        while plans:
            await worker.execute(plans.pop(0))
            if len(worker.events) < 7:
                plans.append(await worker.next_plan())
        assert worker.events == [
            ("plan", 1),
            ("plan", 2),
            ("result", 1),
            ("plan", 3),
            ("result", 2),
            ("plan", 4),
            ("result", 3),
            ("result", 4),
        ]
        await engine.streams.until_finished(request)
        assert engine.tokens(request) == [expected_tokens(PROMPT, 4, 0)]


async def test_the_plain_loop_waits_for_each_result(tmp_path: Path) -> None:
    async with running_engine(tmp_path, overlapped=False) as (engine, worker):
        await engine.submit(submit_request(PROMPT, max_tokens=4))
        plan = await worker.next_plan()
        # A plan would have been sent long before the heartbeat of half a second later.
        assert (await worker.receive()).WhichOneof("message") == "heartbeat"
        await worker.execute(plan)
        assert (await worker.next_plan()).step_id == 2


@pytest.mark.parametrize("overlapped", [True, False])
async def test_streams_go_on_with_the_same_tokens_on_a_new_worker(
    tmp_path: Path, overlapped: bool
) -> None:
    endpoint = f"ipc://{tmp_path}/workers.sock"
    async with running_engine(tmp_path, overlapped=overlapped) as (engine, worker):
        requests = await engine.submit(
            submit_request(PROMPT, max_tokens=20),
            submit_request(PROMPT, max_tokens=20, n=2, seed=5),
        )
        async with executing(worker):
            await engine.streams.until_tokens(requests[0], 4)
        worker.vanish()
        late = submit_request(PROMPT[:2], max_tokens=3)
        await engine.submit(late)
        async with SocketWorker(endpoint) as new:
            await new.join()
            async with executing(new):
                await engine.streams.until_finished(*requests, late)
        assert engine.tokens(requests[0]) == [expected_tokens(PROMPT, 20, 0)]
        assert engine.tokens(requests[1]) == [expected_tokens(PROMPT, 20, s) for s in (5, 6)]
        assert engine.tokens(late) == [expected_tokens(PROMPT[:2], 3, 0)]
        engine.check_all_blocks_are_free()


async def test_a_worker_whose_results_make_no_sense_is_replaced(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/workers.sock"
    async with running_engine(tmp_path) as (engine, worker):
        (request,) = await engine.submit(submit_request(PROMPT))
        plan = await worker.next_plan()
        nonsense = step_pb2.StepResult(epoch=plan.epoch, step_id=plan.step_id, token_ids=[3, 3])
        await worker.send(step_pb2.WorkerFrame(result=nonsense))
        refused = (await worker.receive_kind("refused")).refused
        assert refused.reason.startswith("its result of step 1 is wrong")
        async with SocketWorker(endpoint) as new:
            await new.join()
            async with executing(new):
                await engine.streams.until_finished(request)
        assert engine.tokens(request) == [expected_tokens(PROMPT, 6, 0)]


async def test_a_request_can_come_and_be_aborted_while_there_is_no_worker(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, worker):
        (request,) = await engine.submit(submit_request(PROMPT))
        plan = await worker.next_plan()
        refused = step_pb2.PlanRefused(epoch=plan.epoch, step_id=1, reason="as a test")
        await worker.send(step_pb2.WorkerFrame(plan_refused=refused))
        await worker.receive_kind("refused")
        (late,) = await engine.submit(submit_request(PROMPT))
        for lost in (request, late):
            engine.loop.abort(scheduling_pb2.Abort(request_key=lost.request_key))
        reasons = await engine.streams.until_finished(request, late)
        assert set(reasons) == {common_pb2.FINISH_REASON_ABORT}
        engine.check_all_blocks_are_free()


async def test_a_plan_that_every_worker_refuses_is_not_sent_for_ever(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/workers.sock"
    async with running_engine(tmp_path) as (engine, first), SocketWorker(endpoint) as second:
        (request,) = await engine.submit(submit_request(PROMPT))
        for worker in (first, second):
            if worker is second:
                await worker.join()
            plan = await worker.next_plan()
            refused = step_pb2.PlanRefused(epoch=plan.epoch, step_id=plan.step_id, reason="a test")
            await worker.send(step_pb2.WorkerFrame(plan_refused=refused))
            await worker.receive_kind("refused")
        reasons = await engine.streams.until_finished(request)
        assert reasons == [common_pb2.FINISH_REASON_ERROR]
        assert "failed twice" in engine.streams.finished[request.request_key, 0].error
        engine.check_all_blocks_are_free()


async def test_a_deadline_passes_while_there_is_no_worker(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, worker):
        request = submit_request(PROMPT, timeout_ns=300_000_000)
        await engine.submit(request)
        plan = await worker.next_plan()
        refused = step_pb2.PlanRefused(epoch=plan.epoch, step_id=1, reason="as a test")
        await worker.send(step_pb2.WorkerFrame(plan_refused=refused))
        reasons = await engine.streams.until_finished(request)
        assert reasons == [common_pb2.FINISH_REASON_DEADLINE]
        engine.check_all_blocks_are_free()


async def test_an_abort_frees_the_blocks_before_the_next_plan(tmp_path: Path) -> None:
    async with running_engine(tmp_path, overlapped=False) as (engine, worker):
        kept, gone = await engine.submit(submit_request(PROMPT), submit_request(PROMPT[::-1]))
        plan = await worker.next_plan()
        while len(plan.row) < 2:
            await worker.execute(plan)
            plan = await worker.next_plan()
        engine.loop.abort(scheduling_pb2.Abort(request_key=gone.request_key))
        await worker.execute(plan)
        assert len((await worker.next_plan()).freed_rows) == 1
        assert await engine.streams.until_finished(gone) == [common_pb2.FINISH_REASON_ABORT]
        assert (kept.request_key, 0) not in engine.streams.finished


async def test_a_router_that_leaves_takes_its_requests_along(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, worker):
        await engine.submit(submit_request(PROMPT, max_tokens=50), submit_request(PROMPT))
        async with executing(worker):
            engine.loop.lose_router(ROUTER_ID)
            await engine.loop.drain()
        engine.check_all_blocks_are_free()


async def test_the_loop_wakes_for_a_deadline_with_nothing_else_to_do(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, worker):
        request = submit_request(PROMPT, max_tokens=50, timeout_ns=300_000_000)
        await engine.submit(request)
        window = scheduling_pb2.Window(request_key=request.request_key, max_position=2)
        engine.loop.set_window(window)
        async with executing(worker):
            reasons = await engine.streams.until_finished(request)
        assert reasons == [common_pb2.FINISH_REASON_DEADLINE]
        assert engine.tokens(request) == [expected_tokens(PROMPT, 2, 0)]
        engine.check_all_blocks_are_free()


async def test_a_window_that_opens_lets_the_output_go_on(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, worker):
        (request,) = await engine.submit(submit_request(PROMPT, max_tokens=6))
        window = scheduling_pb2.Window(request_key=request.request_key, max_position=3)
        engine.loop.set_window(window)
        async with executing(worker):
            await engine.streams.until_tokens(request, 3)
            window.max_position = 6
            engine.loop.set_window(window)
            await engine.streams.until_finished(request)
        assert engine.tokens(request) == [expected_tokens(PROMPT, 6, 0)]


async def test_a_burst_is_taken_in_a_bounded_part_a_turn(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, worker):
        requests = [submit_request(PROMPT, max_tokens=1) for _ in range(2 * TOKENS_PER_TURN // 128)]
        tasks = [asyncio.create_task(engine.loop.submit(request)) for request in requests]
        await asyncio.sleep(0)
        assert 0 < engine.scheduler.num_waiting < len(requests)
        engine.loop.abort(scheduling_pb2.Abort(request_key=requests[-1].request_key))
        async with executing(worker):
            await asyncio.gather(*tasks)
            reasons = await engine.streams.until_finished(*requests)
        assert reasons == [LENGTH] * (len(requests) - 1) + [common_pb2.FINISH_REASON_ABORT]


async def test_a_refused_request_tells_its_submitter(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, _):
        with pytest.raises(RequestError, match="64"):
            await engine.loop.submit(submit_request([5] * 64))


async def test_draining_refuses_what_is_new_and_finishes_what_runs(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, worker):
        (request,) = await engine.submit(submit_request(PROMPT))
        draining = asyncio.create_task(engine.loop.drain())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="shutting down") as refused:
            await engine.loop.submit(submit_request(PROMPT))
        assert refused.value.retry_after_s is not None
        assert engine.loop.load().is_draining
        assert not draining.done()
        async with executing(worker):
            await draining
        assert await engine.streams.until_finished(request) == [LENGTH]


async def test_the_load_is_told_when_it_has_changed(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as (engine, worker):
        loads: list[scheduling_pb2.Load] = []

        async def receive(response: scheduling_pb2.AttachResponse) -> None:
            if response.HasField("load"):
                loads.append(response.load)
            if loads and loads[-1].num_running:
                raise EOFError

        observer = engine.sessions.attach(
            scheduling_pb2.Hello(router_id=b"observer", incarnation=1)
        )
        await engine.submit(submit_request(PROMPT, max_tokens=50))
        await worker.next_plan()
        with suppress(EOFError):
            await observer.send_all(receive)
        assert loads[-1].num_running == 1
        assert loads[-1].num_blocks == 32
        assert loads[-1].num_free_blocks < 32
