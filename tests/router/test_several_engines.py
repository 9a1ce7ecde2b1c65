"""A router in front of two schedulers, as its clients see it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from octavo.block_hash import extend_chain, root_hash
from octavo.errors import Overloaded, Unavailable
from octavo.router.tokenizer import Tokenizer
from octavo.v1 import models_pb2, scheduling_pb2, tokenizer_pb2
from octavo.version import PROTOCOL_VERSION
from tests.router.conftest import MODEL, Router, running_router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import PROMPT, encode, failure, generate

SHUTTING_DOWN = Unavailable("the scheduler is shutting down", retry_after_s=0.5)
# Token 5 of the tiny tokenizer is text by itself.
TOKEN_ID = 5


class TwoEngines:
    """Two schedulers, and a router; `attach` opens a stream on each of them.

    Attributes:
        calls: the open streams, by scheduler.
    """

    def __init__(self, directory: Path, info: scheduling_pb2.ModelInfo) -> None:
        self.addresses = [f"unix:{directory}/{index}.sock" for index in range(2)]
        self.schedulers = []
        for _ in self.addresses:
            own = scheduling_pb2.ModelInfo()
            own.CopyFrom(info)
            self.schedulers.append(FakeScheduler(own))
        self.calls: dict[int, Any] = {}
        self._requests: dict[int, scheduling_pb2.SubmitRequest] = {}
        self._num_sent = [0, 0]
        self._servers = [contextlib.AsyncExitStack() for _ in self.addresses]

    async def start(self, index: int) -> None:
        serving = self.schedulers[index].serving(self.addresses[index])
        await self._servers[index].enter_async_context(serving)

    async def end(self, index: int) -> None:
        await self._servers[index].aclose()

    async def attach(self, router: Router) -> None:
        """Return when the router has a stream open on each scheduler."""
        await router.becomes_serving()
        while len(self.calls) < 2:
            call = router.inference.Generate(generate("x"))
            index, request = await self.submitted()
            assert (await call.read()).HasField("started")
            if index in self.calls:
                call.cancel()
                continue
            self.calls[index], self._requests[index] = call, request

    async def submitted(self) -> tuple[int, scheduling_pb2.SubmitRequest]:
        """Return which scheduler the next request came to, and the request."""
        waiting = [asyncio.create_task(each.submitted.get()) for each in self.schedulers]
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        (first,) = done
        return waiting.index(first), first.result()

    async def tell(self, index: int, load: scheduling_pb2.Load) -> None:
        """Let a scheduler send its load; returns when the router has read it."""
        scheduler = self.schedulers[index]
        scheduler.send_load(load)
        # A token that has come through: what was sent before it has, too.
        position = self._num_sent[index]
        scheduler.send_tokens(self._requests[index], [TOKEN_ID], position=position)
        self._num_sent[index] += 1
        assert (await self.calls[index].read()).HasField("delta")

    async def place(self, router: Router, text: str) -> int:
        """Return which scheduler a prompt goes to; its request has ended then."""
        call = router.inference.Generate(generate(text))
        index, request = await self.submitted()
        self.schedulers[index].send_finished(request, num_output_tokens=0)
        events = [event.WhichOneof("event") async for event in call]
        assert events == ["started", "finished", "usage"]
        return index


@pytest.fixture
async def engines(
    socket_directory: Path, model_info: scheduling_pb2.ModelInfo
) -> AsyncIterator[TwoEngines]:
    engines = TwoEngines(socket_directory, model_info)
    yield engines
    for index in range(2):
        await engines.end(index)


@pytest.fixture
async def router(engines: TwoEngines) -> AsyncIterator[Router]:
    """A router that is attached to both."""
    async with running_router(*engines.addresses) as router:
        for index in range(2):
            await engines.start(index)
        await engines.attach(router)
        yield router


def load(cached: bytes = b"", *, is_draining: bool = False) -> scheduling_pb2.Load:
    """Return what a scheduler says that runs the open stream only; `cached` are block hashes."""
    return scheduling_pb2.Load(
        num_running=1,
        num_blocks=100,
        is_draining=is_draining,
        cached_prefixes=b"".join(cached[i : i + 4] for i in range(0, len(cached), 16)),
    )


def retry_after_s(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)
    assert status is not None
    details = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(details)
    seconds: float = details.retry_delay.ToMilliseconds() / 1000
    return seconds


@pytest.mark.parametrize("holder", [0, 1])
async def test_a_prompt_goes_where_its_prefix_is_cached(
    router: Router, engines: TwoEngines, tokenizer: Tokenizer, holder: int
) -> None:
    chain = extend_chain(root_hash(b"weights", ""), encode(tokenizer, PROMPT), 4)
    await engines.tell(holder, load(b"".join(chain)))
    await engines.tell(1 - holder, load(bytes(16)))
    assert [await engines.place(router, PROMPT) for _ in range(3)] == [holder] * 3


async def test_without_a_name_it_is_the_one_model_of_both(
    router: Router, engines: TwoEngines
) -> None:
    call = router.inference.Generate(generate(model=""))
    await engines.submitted()
    assert (await call.read()).started.model == MODEL
    call.cancel()


async def test_prompts_without_a_prefix_go_to_both(router: Router, engines: TwoEngines) -> None:
    places = {await engines.place(router, f"{number} bottles") for number in range(4)}
    assert places == {0, 1}


async def test_a_lost_engine_ends_its_own_streams_and_the_other_takes_what_is_new(
    router: Router, engines: TwoEngines
) -> None:
    await engines.end(0)
    error = await failure(engines.calls[0])
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the scheduler cannot be reached; send the request again"
    assert [await engines.place(router, f"{n} bottles") for n in range(4)] == [1] * 4
    await router.becomes_serving()
    # The other's stream has heard nothing of it.
    await engines.tell(1, load())
    await engines.end(1)
    await router.becomes_not_serving()
    refused = await failure(router.inference.Generate(generate()))
    assert refused.code() == grpc.StatusCode.UNAVAILABLE
    assert retry_after_s(refused) > 0
    # Text goes on being tokenized.
    request = tokenizer_pb2.TokenizeRequest(model=MODEL, text="the cat")
    assert (await router.tokenizer.Tokenize(request)).token_ids


async def test_a_draining_engine_is_left_out_and_its_streams_go_on(
    router: Router, engines: TwoEngines
) -> None:
    await engines.tell(0, load(is_draining=True))
    assert [await engines.place(router, f"{n} bottles") for n in range(4)] == [1] * 4
    await engines.tell(0, load(is_draining=True))
    await engines.tell(1, load(is_draining=True))
    await router.becomes_not_serving()
    refused = await failure(router.inference.Generate(generate()))
    assert refused.code() == grpc.StatusCode.UNAVAILABLE
    assert retry_after_s(refused) > 0


async def test_a_request_that_was_not_taken_goes_to_the_other_engine(
    router: Router, engines: TwoEngines
) -> None:
    for scheduler in engines.schedulers:
        scheduler.refusal = SHUTTING_DOWN
    call = router.inference.Generate(generate())
    first, refused = await engines.submitted()
    # The one that it comes to next.
    engines.schedulers[1 - first].refusal = None
    second, taken = await engines.submitted()
    assert second == 1 - first
    assert taken.request_key != refused.request_key
    assert taken.prompt_token_ids == refused.prompt_token_ids
    engines.schedulers[second].send_finished(taken, num_output_tokens=0)
    events = [event async for event in call]
    assert [event.WhichOneof("event") for event in events] == ["started", "finished", "usage"]
    assert [event.sequence_number for event in events] == [0, 1, 2]


async def test_two_engines_are_tried_and_no_third_time(router: Router, engines: TwoEngines) -> None:
    for scheduler in engines.schedulers:
        scheduler.refusal = SHUTTING_DOWN
    error = await failure(router.inference.Generate(generate()))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the scheduler is shutting down"
    assert [scheduler.submitted.qsize() for scheduler in engines.schedulers] == [1, 1]


async def test_a_request_that_is_refused_for_good_is_tried_once(
    router: Router, engines: TwoEngines
) -> None:
    for scheduler in engines.schedulers:
        scheduler.refusal = Overloaded("the queue is full", retry_after_s=1)
    error = await failure(router.inference.Generate(generate()))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert sum(scheduler.submitted.qsize() for scheduler in engines.schedulers) == 1


async def test_each_name_is_listed_once_and_goes_to_its_engine(engines: TwoEngines) -> None:
    engines.schedulers[1].model.served_names[:] = ["other", "alias"]
    async with running_router(*engines.addresses) as router:
        for index in range(2):
            await engines.start(index)
        await router.becomes_serving()
        names: set[str] = set()
        while len(names) < 3:
            listed = await router.models.ListModels(models_pb2.ListModelsRequest())
            names = {model.id for model in listed.models}
        assert len(listed.models) == 3
        for name, index in ((MODEL, 0), ("other", 1)):
            call = router.inference.Generate(generate(model=name))
            assert (await engines.submitted())[0] == index
            call.cancel()
        error = await failure(router.inference.Generate(generate(model="third")))
        assert error.code() == grpc.StatusCode.NOT_FOUND
        assert "'other'" in error.details() and f"'{MODEL}'" in error.details()
        error = await failure(router.inference.Generate(generate(model="")))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "model is missing, and several are served" in error.details()
        await engines.end(1)
        while (error := await failure(router.inference.Generate(generate(model="other")))).code():
            if error.details().startswith("no scheduler of model 'other'"):
                break
        assert error.code() == grpc.StatusCode.UNAVAILABLE


async def test_an_engine_that_cannot_be_used_leaves_the_others_alone(engines: TwoEngines) -> None:
    engines.schedulers[0].protocol_version = PROTOCOL_VERSION + 1
    await engines.start(0)
    async with running_router(*engines.addresses) as router:
        await engines.schedulers[0].hellos.get()
        await engines.start(1)
        await router.becomes_serving()
        assert await engines.place(router, PROMPT) == 1
        assert not router.process.done()
