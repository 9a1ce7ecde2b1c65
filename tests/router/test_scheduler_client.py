"""The link to the scheduler: the handshake, its loss, and what comes down that should not."""

import grpc
import pytest

from octavo.router.scheduler_client import SchedulerClient
from octavo.startup import StartupError
from octavo.v1 import scheduling_pb2
from octavo.version import PROTOCOL_VERSION
from tests.router.conftest import Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import failure, generate


async def nothing(*_: object) -> None:
    pass


async def test_a_scheduler_of_another_version_is_refused(
    scheduler: FakeScheduler, scheduler_address: str
) -> None:
    scheduler.protocol_version = PROTOCOL_VERSION + 1
    client = SchedulerClient(scheduler_address, b"router")
    message = f"speaks protocol {PROTOCOL_VERSION + 1}, this router {PROTOCOL_VERSION}"
    with pytest.raises(StartupError, match=message):
        await client.run(nothing, nothing)
    assert not client.is_attached


async def test_streams_end_when_the_scheduler_is_lost_and_the_next_one_is_found(
    router_alone: Router, model_info: scheduling_pb2.ModelInfo, scheduler_address: str
) -> None:
    first = FakeScheduler(model_info)
    async with first.serving(scheduler_address):
        await router_alone.becomes_serving()
        call = router_alone.inference.Generate(generate())
        await first.submitted.get()
        await call.read()
    error = await failure(call)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the scheduler cannot be reached; send the request again"
    await router_alone.becomes_not_serving()
    refused = await failure(router_alone.inference.Generate(generate()))
    assert refused.code() == grpc.StatusCode.UNAVAILABLE

    second = FakeScheduler(model_info)
    async with second.serving(scheduler_address):
        await router_alone.becomes_serving()
        hellos = [first.hellos.get_nowait(), second.hellos.get_nowait()]
        assert hellos[0].router_id == hellos[1].router_id
        assert len(hellos[0].router_id) == 16
        assert hellos[0].incarnation < hellos[1].incarnation
        again = router_alone.inference.Generate(generate())
        submitted = await second.submitted.get()
        assert submitted.router_id == hellos[0].router_id
        second.send_finished(submitted, num_output_tokens=0)
        assert (await again.read()).HasField("started")


@pytest.mark.parametrize(
    "outputs",
    [
        scheduling_pb2.StepOutputs(request_key=[b"a"], token_ids=[1]),
        scheduling_pb2.StepOutputs(
            request_key=[b"a"], output_index=[0], first_position=[0], num_tokens=[2], token_ids=[1]
        ),
    ],
    ids=["unequal columns", "missing tokens"],
)
async def test_columns_that_do_not_fit_end_the_attachment(
    router: Router, scheduler: FakeScheduler, outputs: scheduling_pb2.StepOutputs
) -> None:
    call = router.inference.Generate(generate())
    await scheduler.submitted.get()
    scheduler.hellos.get_nowait()
    scheduler.send(outputs)
    error = await failure(call)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert (await scheduler.hellos.get()).incarnation == 2


async def test_tokens_of_a_request_nobody_has_are_dropped(
    router: Router, scheduler: FakeScheduler
) -> None:
    call = router.inference.Generate(generate())
    submitted = await scheduler.submitted.get()
    stranger = scheduling_pb2.SubmitRequest(request_key=b"nobody's")
    scheduler.send_tokens(stranger, [1, 2])
    scheduler.send_finished(stranger, num_output_tokens=2)
    scheduler.send_finished(submitted, num_output_tokens=0)
    events = [event.WhichOneof("event") async for event in call]
    assert events == ["started", "finished", "usage"]
