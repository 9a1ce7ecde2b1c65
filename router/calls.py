"""Around every call: its label in the log, its key, its errors as statuses, its count."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
import structlog

from octavo.api_keys import ApiKeys
from octavo.errors import InternalError, RequestError, abort

from .metrics import RouterMetrics
from .validation import MAX_REQUEST_ID_CHARACTERS

# A client that does not read keeps even its error from being sent.
_ABORT_TIMEOUT_S = 5.0

log = structlog.get_logger()

request_id: ContextVar[str] = ContextVar("request_id")
"""The label of the request that the current task serves."""

tenant: ContextVar[str] = ContextVar("tenant", default="")
"""Whose request the current task serves; empty where there are no keys."""

relay_key: ContextVar[bytes] = ContextVar("relay_key", default=b"")
"""Where the current task's call wants its text (relay.proto); empty: with the rest of it."""


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Turns what a servicer raises into a status; no traceback ever reaches a client."""

    def __init__(self, metrics: RouterMetrics, api_keys: ApiKeys) -> None:
        self._metrics = metrics
        self._api_keys = api_keys

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/octavo."):
            return handler
        if handler.request_streaming:
            make, behaviour = grpc.stream_stream_rpc_method_handler, handler.stream_stream
        elif handler.response_streaming:
            make, behaviour = grpc.unary_stream_rpc_method_handler, handler.unary_stream
        else:
            make, behaviour = grpc.unary_unary_rpc_method_handler, handler.unary_unary
        metadata = dict(details.invocation_metadata or ())
        label = str(metadata.get("x-request-id") or secrets.token_hex(8))[
            :MAX_REQUEST_ID_CHARACTERS
        ]
        authorization = str(metadata.get("authorization", ""))
        wanted_relay = metadata.get("x-relay-bin", b"")
        method = details.method.rpartition("/")[2]

        async def call(request: Any, context: Any) -> Any:
            request_id.set(label)
            relay_key.set(wanted_relay)
            code = "CANCELLED"
            try:
                tenant.set(self._api_keys.tenant_of(authorization))
                answer = await behaviour(request, context)
                code = "OK"
                return answer
            except RequestError as error:
                code = error.code.name
                await _abort(context, error)
            except Exception:
                code = grpc.StatusCode.INTERNAL.name
                log.exception("call failed", method=method, request_id=request_id.get())
                message = f"internal error; request id {request_id.get()}"
                await _abort(context, InternalError(message))
            finally:
                self._metrics.count_call(method, code)

        return make(call, handler.request_deserializer, handler.response_serializer)


async def _abort(context: Any, error: RequestError) -> None:
    try:
        async with asyncio.timeout(_ABORT_TIMEOUT_S):
            await abort(context, error)
    except TimeoutError:
        # The status is on its way behind what the client does not read.
        raise grpc.aio.AbortError(error.message) from None
