"""Calls that fail: each with its status, its field, its sentence; never with a traceback."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from octavo.errors import Overloaded
from octavo.router.tokenizer import Tokenizer
from octavo.v1 import inference_pb2, scheduling_pb2
from octavo.v1.common_pb2 import (
    FINISH_REASON_DEADLINE,
    FINISH_REASON_ERROR,
)
from tests.router.conftest import Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import encode, failure, field_of, generate


async def test_the_label_of_the_metadata_is_echoed(
    router: Router, scheduler: FakeScheduler
) -> None:
    call = router.inference.Generate(generate(), metadata=(("x-request-id", "from-metadata"),))
    assert (await call.read()).started.request_id == "from-metadata"
    assert ("x-request-id", "from-metadata") in list(await call.initial_metadata())


async def test_a_request_that_failed_says_why(router: Router, scheduler: FakeScheduler) -> None:
    call = router.inference.Generate(generate(n=2))
    submitted = await scheduler.submitted.get()
    scheduler.send_finished(submitted, FINISH_REASON_ERROR, error="the logits are not numbers")
    error = await failure(call)
    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details() == "the logits are not numbers"
    # The other output would go on for nobody.
    assert (await scheduler.aborted()).reason == scheduling_pb2.ABORT_REASON_CLIENT


async def test_a_refusal_of_the_scheduler_reaches_the_client(
    router: Router, scheduler: FakeScheduler
) -> None:
    scheduler.refusal = Overloaded("1024 requests are waiting", retry_after_s=2)
    error = await failure(router.inference.Generate(generate()))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "1024 requests are waiting"
    status = rpc_status.from_call(error)
    assert status is not None
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.seconds == 2


async def test_tokens_that_are_no_outputs_fail_one_request_without_a_traceback(
    router: Router,
    scheduler: FakeScheduler,
    tokenizer: Tokenizer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = router.inference.Generate(generate(request_id="bad-one"))
    bad_submitted = await scheduler.submitted.get()
    good = router.inference.Generate(generate())
    good_submitted = await scheduler.submitted.get()
    scheduler.send_tokens(bad_submitted, [5], output_index=3)
    scheduler.send_tokens(good_submitted, encode(tokenizer, " the"))
    scheduler.send_finished(good_submitted, num_output_tokens=1)
    error = await failure(bad)
    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; request id bad-one"
    assert "".join([event.delta.text async for event in good]) == " the"


async def test_a_gap_fails_the_request_and_what_was_seen_is_dropped(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = router.inference.Generate(generate())
    submitted = await scheduler.submitted.get()
    tokens = encode(tokenizer, "the cat")
    scheduler.send_tokens(submitted, tokens[:2])
    scheduler.send_tokens(submitted, tokens, position=0)
    scheduler.send_tokens(submitted, [5], position=len(tokens) + 1)
    text = ""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for event in call:
            text += event.delta.text
    assert text == "the cat"
    assert error.value.code() == grpc.StatusCode.INTERNAL
    assert "tokens were lost" in str(error.value.details())


@pytest.mark.parametrize(
    ("request_", "code", "field", "message"),
    [
        (generate(model="gpt-9"), "NOT_FOUND", "model", "'gpt-9' is not served here; served: 'org"),
        (generate(""), "INVALID_ARGUMENT", "prompt", "the prompt is empty"),
        (generate("日" * 1000), "INVALID_ARGUMENT", "prompt", "prompt has 2000 tokens, the con"),
        (generate(n=17), "INVALID_ARGUMENT", "n", "n is 17; it must be between 1 and 16"),
    ],
)
async def test_bad_requests_never_reach_the_scheduler(
    router: Router,
    scheduler: FakeScheduler,
    request_: inference_pb2.GenerateRequest,
    code: str,
    field: str,
    message: str,
) -> None:
    error = await failure(router.inference.Generate(request_))
    assert error.code().name == code
    assert field_of(error) == field
    assert message in str(error.details())
    assert scheduler.submitted.empty()


async def test_resume_is_not_offered_yet(router: Router) -> None:
    error = await failure(router.inference.Resume(inference_pb2.ResumeRequest()))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "send the request again" in str(error.details())


async def test_a_deadline_that_the_scheduler_notices(
    router: Router, scheduler: FakeScheduler, tokenizer: Tokenizer
) -> None:
    call = router.inference.Generate(generate())
    submitted = await scheduler.submitted.get()
    scheduler.send_tokens(submitted, encode(tokenizer, " the"))
    scheduler.send_finished(submitted, FINISH_REASON_DEADLINE, num_output_tokens=1)
    started, delta = await call.read(), await call.read()
    assert (started.HasField("started"), delta.delta.text) == (True, " the")
    error = await failure(call)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_deadline_that_the_client_has_aborts_the_request(
    router: Router, scheduler: FakeScheduler
) -> None:
    call = router.inference.Generate(generate(), timeout=0.2)
    error = await failure(call)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await scheduler.aborted()).reason == scheduling_pb2.ABORT_REASON_CLIENT
