"""Requests to a router, and what is made of its answers."""

from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from octavo.router.tokenizer import Tokenizer
from octavo.v1 import common_pb2, inference_pb2
from tests.router.conftest import MODEL

PROMPT = "the cat sat on the mat, hello"


def generate(
    text: str = PROMPT,
    *,
    n: int = 1,
    stop: Sequence[str] = (),
    return_token_ids: bool = False,
    model: str = MODEL,
    request_id: str = "",
) -> inference_pb2.GenerateRequest:
    options = inference_pb2.GenerationOptions(
        model=model,
        n=n,
        stop=common_pb2.StopConditions(stop=stop),
        return_token_ids=return_token_ids,
        request_id=request_id,
    )
    return inference_pb2.GenerateRequest(options=options, text=text)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """Return what the call fails of; fails the test if it does not."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        while await call.read() is not grpc.aio.EOF:
            pass
    return error.value


def field_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    details = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(details)
    field: str = details.field_violations[0].field
    return field
