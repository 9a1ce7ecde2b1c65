"""The router as a whole: how it starts, what it refuses to start with, how it ends."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import grpc
import pytest

from octavo.api_keys import ApiKeys
from octavo.grpc_server import grpc_server
from octavo.router.calls import CallInterceptor
from octavo.router.engine import Engine
from octavo.router.engine_catalog import EngineCatalog
from octavo.router.loaded_models import LoadedModels
from octavo.router.metrics import RouterMetrics
from octavo.router.open_requests import OpenRequests
from octavo.router.relay import Relays
from octavo.router.scheduler_client import SchedulerClient
from octavo.router.server import serve
from octavo.router.service import InferenceServicer
from octavo.router.settings import RouterSettings
from octavo.router.tokenizer import Tokenizer
from octavo.startup import StartupError, StartupReport
from octavo.v1 import inference_pb2_grpc, models_pb2, scheduling_pb2, tokenizer_pb2
from octavo.v1.inference_pb2 import ChatMessage
from tests.router.conftest import MODEL, Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import failure, generate


async def test_before_a_scheduler_is_there_requests_are_told_to_come_back(
    router_alone: Router,
) -> None:
    await router_alone.becomes_not_serving()
    error = await failure(router_alone.inference.Generate(generate()))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the model is still loading; send the request again"


async def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = RouterSettings(grpc_port=port, scheduler=("unix:/nowhere.sock",))
        with pytest.raises(StartupError, match=rf"port {port} .*--grpc-port"):
            await serve(settings, StartupReport(None))


async def test_a_model_the_router_cannot_read_stops_it(
    router_alone: Router,
    model_info: scheduling_pb2.ModelInfo,
    scheduler_address: str,
    tmp_path: Path,
) -> None:
    model_info.path = str(tmp_path)
    async with FakeScheduler(model_info).serving(scheduler_address):
        with pytest.raises(StartupError, match=r"it has no tokenizer\.json"):
            await router_alone.process


async def test_sigterm_lets_open_streams_finish_and_new_ones_go_elsewhere(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = router.inference.Generate(generate())
    submitted = await scheduler.submitted.get()
    await call.read()
    os.kill(os.getpid(), signal.SIGTERM)
    await router.becomes_not_serving()
    refused = await failure(router.inference.Generate(generate()))
    assert refused.code() == grpc.StatusCode.UNAVAILABLE
    assert refused.details() == "this router is shutting down; send the request again"
    scheduler.send_tokens(submitted, tokenizer.encode(" hello", add_special_tokens=False))
    scheduler.send_finished(submitted, num_output_tokens=1)
    assert (await call.read()).delta.text == " hello"
    assert (await call.read()).HasField("finished")
    assert (await call.read()).HasField("usage")
    await router.process


async def test_a_client_that_does_not_read_is_given_up_and_others_go_on(
    scheduler: FakeScheduler, scheduler_address: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    engine = Engine(SchedulerClient(scheduler_address, b"router"), LoadedModels())
    open_requests = OpenRequests()
    metrics = RouterMetrics(open_requests)
    servicer = InferenceServicer(
        EngineCatalog([engine]), open_requests, metrics, Relays(), stall_timeout_s=0.5
    )
    address = scheduler_address.replace("scheduler.sock", "router.sock")
    services = {
        "octavo.v1.Inference": lambda server: inference_pb2_grpc.add_InferenceServicer_to_server(
            servicer, server
        )
    }
    is_serving = asyncio.Event()

    async def on_change() -> None:
        is_serving.set()

    async with (
        grpc_server(
            address, services, grace_s=0, interceptors=[CallInterceptor(metrics, ApiKeys(()))]
        ),
        grpc.aio.insecure_channel(address) as channel,
    ):
        running = asyncio.create_task(engine.run(on_change))
        await is_serving.wait()
        inference = inference_pb2_grpc.InferenceStub(channel)
        slow = inference.Generate(generate())
        slow_submitted = await scheduler.submitted.get()
        token_ids = tokenizer.encode("the " * 40_000, add_special_tokens=False)[:12_000]

        async def flood() -> None:
            position = 0
            while True:
                scheduler.send_tokens(slow_submitted, token_ids, position=position)
                position += len(token_ids)
                await asyncio.sleep(0.005)

        flooding = asyncio.create_task(flood())
        # The buffers of the connection take some; then the router asks for a pause, then gives up.
        control = await scheduler.controls.get()
        assert control.HasField("window")
        while not control.HasField("abort"):
            control = await scheduler.controls.get()
        flooding.cancel()
        assert control.abort.reason == scheduling_pb2.ABORT_REASON_SLOW_READER

        other = inference.Generate(generate("hello"))
        other_submitted = await scheduler.submitted.get()
        scheduler.send_finished(other_submitted, num_output_tokens=0)
        assert (await other.read()).HasField("started")
        assert (await other.read()).HasField("finished")

        assert (await failure(slow)).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        labels = {"method": "Generate", "code": "RESOURCE_EXHAUSTED"}
        assert metrics.registry.get_sample_value("octavo_router_calls_total", labels) == 1
        running.cancel()
        await asyncio.wait((running,))


async def test_models_are_listed_under_all_their_names(router: Router) -> None:
    listed = await router.models.ListModels(models_pb2.ListModelsRequest())
    assert [model.id for model in listed.models] == [MODEL, "alias"]
    found = await router.models.GetModel(models_pb2.GetModelRequest(model="alias"))
    assert (found.model.max_model_len, found.model.created_s) == (200, 1_700_000_000)
    assert "/" not in found.model.root
    the_one = await router.models.GetModel(models_pb2.GetModelRequest())
    assert the_one.model.id == MODEL
    with pytest.raises(grpc.aio.AioRpcError, match="'other' is not served here") as error:
        await router.models.GetModel(models_pb2.GetModelRequest(model="other"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


async def test_text_goes_to_token_ids_and_back(router: Router, tokenizer: Tokenizer) -> None:
    request = tokenizer_pb2.TokenizeRequest(model=MODEL, text="the 日本 cat")
    answer = await router.tokenizer.Tokenize(request)
    assert list(answer.token_ids) == tokenizer.encode("the 日本 cat", add_special_tokens=True)
    assert answer.max_model_len == 200
    back = await router.tokenizer.Detokenize(
        tokenizer_pb2.DetokenizeRequest(model=MODEL, token_ids=answer.token_ids)
    )
    assert back.text == "the 日本 cat"


async def test_a_conversation_comes_back_with_its_special_tokens(router: Router) -> None:
    conversation = tokenizer_pb2.Conversation(messages=[ChatMessage(role="user", content="hi")])
    answer = await router.tokenizer.Tokenize(
        tokenizer_pb2.TokenizeRequest(model=MODEL, conversation=conversation)
    )
    back = await router.tokenizer.Detokenize(
        tokenizer_pb2.DetokenizeRequest(model=MODEL, token_ids=answer.token_ids)
    )
    assert back.text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


async def test_a_conversation_is_tokenized_as_chat_does(
    router: Router, tokenizer: Tokenizer
) -> None:
    conversation = tokenizer_pb2.Conversation(messages=[ChatMessage(role="user", content="hi")])
    request = tokenizer_pb2.TokenizeRequest(model=MODEL, conversation=conversation)
    rendered = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    answer = await router.tokenizer.Tokenize(request)
    assert list(answer.token_ids) == tokenizer.encode(rendered, add_special_tokens=False)


async def test_a_conversation_is_tokenized_as_it_is_to_end(
    router: Router, tokenizer: Tokenizer
) -> None:
    conversation = tokenizer_pb2.Conversation(messages=[ChatMessage(role="user", content="hi")])
    for field, end in (("add_generation_prompt", "<|im_end|>\n"), ("continue_final_message", "")):
        changed = tokenizer_pb2.Conversation(
            add_generation_prompt=False, continue_final_message=not end
        )
        changed.MergeFrom(conversation)
        request = tokenizer_pb2.TokenizeRequest(model=MODEL, conversation=changed)
        answer = await router.tokenizer.Tokenize(request)
        wanted = tokenizer.encode("<|im_start|>user\nhi" + end, add_special_tokens=False)
        assert list(answer.token_ids) == wanted, field


async def test_tokens_are_spelled_as_the_vocabulary_does(
    router: Router, tokenizer: Tokenizer
) -> None:
    request = tokenizer_pb2.TokenizeRequest(model=MODEL, text="the cat", return_token_strs=True)
    answer = await router.tokenizer.Tokenize(request)
    assert len(answer.token_strs) == len(answer.token_ids)
    assert "".join(answer.token_strs).replace("Ġ", " ") == "the cat"


async def test_a_prompt_that_is_too_long_is_named_as_rest_clients_know_it(router: Router) -> None:
    request = tokenizer_pb2.TokenizeRequest(model=MODEL, text="x" * (16 * 200 + 1))
    with pytest.raises(grpc.aio.AioRpcError, match="prompt has 3201 bytes of text"):
        await router.tokenizer.Tokenize(request)


async def test_token_ids_beyond_the_vocabulary_are_refused(router: Router) -> None:
    request = tokenizer_pb2.DetokenizeRequest(model=MODEL, token_ids=[512])
    with pytest.raises(grpc.aio.AioRpcError, match="the model's ids are below 512") as error:
        await router.tokenizer.Detokenize(request)
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
