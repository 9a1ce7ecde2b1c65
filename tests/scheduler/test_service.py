"""The Scheduling service over a real gRPC connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from octavo.errors import from_rpc_error
from octavo.grpc_server import grpc_server
from octavo.scheduler.service import SERVICE_NAME, Engine, SchedulingServicer
from octavo.v1 import common_pb2, scheduling_pb2, scheduling_pb2_grpc
from octavo.version import PROTOCOL_VERSION
from tests.scheduler.engine import Streams, executing, running_engine, submit_request
from tests.scheduler.engine import TestEngine as RunningEngine
from tests.scheduler.socket_worker import TIMEOUT_S, SocketWorker
from tests.worker.test_mock_runner import expected_tokens

ROUTER_ID = b"router-over-grpc"
PROMPT = [5, 6, 7, 8, 9, 10]


class RouterStub:
    """A router's end of Attach and Submit."""

    def __init__(self, channel: grpc.aio.Channel, router_id: bytes = ROUTER_ID) -> None:
        self.router_id = router_id
        self.stub = scheduling_pb2_grpc.SchedulingStub(channel)
        self.streams = Streams()
        self.call: Any = self.stub.Attach()

    async def say_hello(
        self, *, incarnation: int = 1, protocol_version: int = PROTOCOL_VERSION
    ) -> None:
        hello = scheduling_pb2.Hello(
            router_id=self.router_id, incarnation=incarnation, protocol_version=protocol_version
        )
        await self.call.write(scheduling_pb2.AttachRequest(hello=hello))

    async def attach(self, *, incarnation: int = 1) -> scheduling_pb2.Welcome:
        await self.say_hello(incarnation=incarnation)
        async with asyncio.timeout(TIMEOUT_S):
            response = await self.call.read()
        assert response.HasField("welcome")
        return response.welcome  # type: ignore[no-any-return]

    async def submit(self, request: scheduling_pb2.SubmitRequest) -> None:
        await self.stub.Submit(request, timeout=TIMEOUT_S)

    async def receive(self) -> None:
        """Receive until the stream ends."""
        while (response := await self.call.read()) is not grpc.aio.EOF:
            await self.streams.receive(response)

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Streams]:
        task = asyncio.create_task(self.receive())
        try:
            yield self.streams
        finally:
            task.cancel()


def request(prompt: list[int], *, max_tokens: int = 6) -> scheduling_pb2.SubmitRequest:
    return submit_request(prompt, max_tokens=max_tokens, router_id=ROUTER_ID)


@asynccontextmanager
async def serving(address: str, servicer: SchedulingServicer) -> AsyncIterator[grpc.aio.Channel]:
    register = partial(scheduling_pb2_grpc.add_SchedulingServicer_to_server, servicer)
    async with (
        grpc_server(address, {SERVICE_NAME: register}, grace_s=0.1),
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield channel


@asynccontextmanager
async def scheduler(
    directory: Path, *, max_queued_bytes: int = 1 << 20
) -> AsyncIterator[tuple[RouterStub, RunningEngine, SocketWorker]]:
    servicer = SchedulingServicer()
    async with (
        running_engine(directory, max_queued_bytes=max_queued_bytes) as (engine, worker),
        serving(f"unix:{directory}/grpc.sock", servicer) as channel,
    ):
        servicer.open(Engine(engine.loop, engine.sessions, engine.model))
        yield RouterStub(channel), engine, worker


async def until_gone(engine: RunningEngine) -> None:
    """Wait until the router over gRPC is detached."""
    async with asyncio.timeout(TIMEOUT_S):
        while ROUTER_ID in engine.sessions:
            await asyncio.sleep(0.001)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """Await a call that has to fail; return how."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async with asyncio.timeout(TIMEOUT_S):
            await call
    return failed.value


async def test_a_router_learns_the_model_and_gets_its_tokens(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, _, worker):
        welcome = await router.attach()
        assert welcome.protocol_version == PROTOCOL_VERSION
        model = welcome.model
        assert list(model.served_names) == ["mock"]
        assert (model.max_model_len, model.vocab_size, model.block_size) == (64, 1000, 4)
        assert list(model.eos_token_ids) == [2]
        submitted = request(PROMPT)
        await router.submit(submitted)
        async with router.receiving() as streams, executing(worker):
            await streams.until_finished(submitted)
        assert streams.tokens[submitted.request_key, 0] == expected_tokens(PROMPT, 6, 0)
        usage = streams.finished[submitted.request_key, 0].usage
        assert (usage.num_prompt_tokens, usage.num_output_tokens) == (6, 6)


async def test_an_abort_on_the_stream_ends_the_request(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, engine, worker):
        await router.attach()
        submitted = request(PROMPT, max_tokens=50)
        await router.submit(submitted)
        abort = scheduling_pb2.Abort(request_key=submitted.request_key)
        await router.call.write(scheduling_pb2.AttachRequest(abort=abort))
        async with router.receiving() as streams, executing(worker):
            reasons = await streams.until_finished(submitted)
            assert reasons == [common_pb2.FINISH_REASON_ABORT]
            await engine.loop.drain()
        engine.check_all_blocks_are_free()


async def test_a_window_on_the_stream_pauses_the_output(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, engine, worker):
        await router.attach()
        submitted = request(PROMPT, max_tokens=5)
        window = scheduling_pb2.Window(request_key=submitted.request_key, max_position=2)
        await router.submit(submitted)
        await router.call.write(scheduling_pb2.AttachRequest(window=window))
        async with router.receiving() as streams, executing(worker):
            await streams.until_tokens(submitted, 2)
            window.max_position = 5
            await router.call.write(scheduling_pb2.AttachRequest(window=window))
            await streams.until_finished(submitted)


async def test_a_stream_that_ends_takes_its_requests_along(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, engine, worker):
        await router.attach()
        await router.submit(request(PROMPT, max_tokens=50))
        await worker.next_plan()
        router.call.cancel()
        await until_gone(engine)
        assert engine.scheduler.num_running == 0
        load = engine.scheduler.load()
        assert load.num_free_blocks == load.num_blocks


async def test_submit_before_attach_is_refused(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, _, _):
        error = await refusal(router.submit(request(PROMPT)))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "not attached" in error.details()


async def test_another_protocol_version_is_refused_with_both_named(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, _, _):
        await router.say_hello(protocol_version=99)
        error = await refusal(router.call.read())
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"version 99, the scheduler {PROTOCOL_VERSION}" in error.details()


@pytest.mark.parametrize(
    "first",
    [
        scheduling_pb2.AttachRequest(),
        scheduling_pb2.AttachRequest(abort=scheduling_pb2.Abort(request_key=bytes(16))),
    ],
)
async def test_the_first_message_has_to_be_hello(
    tmp_path: Path, first: scheduling_pb2.AttachRequest
) -> None:
    async with scheduler(tmp_path) as (router, _, _):
        await router.call.write(first)
        error = await refusal(router.call.read())
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_hello_said_twice_ends_the_stream_and_its_requests(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, engine, _):
        await router.attach()
        await router.submit(request(PROMPT))
        await router.say_hello()
        error = await refusal(router.receive())
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        await until_gone(engine)
        assert engine.scheduler.num_running + engine.scheduler.num_waiting == 0


async def test_a_router_that_attaches_again_starts_afresh(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, engine, worker):
        await router.attach()
        await router.submit(request(PROMPT))
        channel = grpc.aio.insecure_channel(f"unix:{tmp_path}/grpc.sock")
        async with channel:
            again = RouterStub(channel)
            await again.attach(incarnation=2)
            assert engine.scheduler.num_running + engine.scheduler.num_waiting == 0
            error = await refusal(router.receive())
            assert error.details() == "the router has attached again"
            submitted = request(PROMPT)
            await again.submit(submitted)
            async with again.receiving() as streams, executing(worker):
                await streams.until_finished(submitted)


async def test_a_request_that_cannot_be_served_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, _, _):
        await router.attach()
        too_long = from_rpc_error(await refusal(router.submit(request([5] * 64))))
        assert too_long.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "64" in too_long.message
        bad_key = request(PROMPT)
        bad_key.request_key = b"short"
        error = from_rpc_error(await refusal(router.submit(bad_key)))
        assert (error.field, error.message) == ("request_key", "request_key has 5 bytes, not 16")


async def test_a_draining_scheduler_says_when_to_come_again(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, engine, _):
        await router.attach()
        await engine.loop.drain()
        error = from_rpc_error(await refusal(router.submit(request(PROMPT))))
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert error.retry_after_s is not None


async def test_a_closed_session_ends_its_stream_in_order(tmp_path: Path) -> None:
    async with scheduler(tmp_path) as (router, engine, worker):
        await router.attach()
        submitted = request(PROMPT)
        await router.submit(submitted)
        async with executing(worker):
            await engine.loop.drain()
        engine.sessions.close()
        async with asyncio.timeout(TIMEOUT_S):
            await router.receive()
        assert (submitted.request_key, 0) in router.streams.finished
        assert await router.call.code() is grpc.StatusCode.OK


async def test_a_router_that_does_not_read_is_cut_and_the_others_go_on(tmp_path: Path) -> None:
    async with (
        scheduler(tmp_path, max_queued_bytes=200_000) as (router, engine, worker),
        grpc.aio.insecure_channel(f"unix:{tmp_path}/grpc.sock") as channel,
    ):
        await router.attach()
        await router.submit(request(PROMPT, max_tokens=50))
        reader = RouterStub(channel, b"router-that-read")
        await reader.attach()
        # Both are sent the same, at the pace of the one that reads. What gRPC and the kernel take
        # for the other one is full after some megabytes.
        flood = scheduling_pb2.StepOutputs(token_ids=[1 << 20] * 15_000)
        while ROUTER_ID in engine.sessions:
            engine.sessions.deliver({ROUTER_ID: flood, reader.router_id: flood})
            async with asyncio.timeout(TIMEOUT_S):
                while not (await reader.call.read()).outputs.token_ids:
                    pass
        assert reader.router_id in engine.sessions
        async with executing(worker):
            await engine.loop.drain()
        engine.check_all_blocks_are_free()
        error = await refusal(router.receive())
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_attach_waits_for_the_workers_and_submit_does_not(tmp_path: Path) -> None:
    servicer = SchedulingServicer()
    async with (
        running_engine(tmp_path) as (engine, _),
        serving(f"unix:{tmp_path}/grpc.sock", servicer) as channel,
    ):
        router = RouterStub(channel)
        attached = asyncio.create_task(router.attach())
        error = from_rpc_error(await refusal(router.submit(request(PROMPT))))
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert "waiting for its workers" in error.message
        assert error.retry_after_s is not None
        assert not attached.done()
        servicer.open(Engine(engine.loop, engine.sessions, engine.model))
        assert (await attached).model == engine.model
