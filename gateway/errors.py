"""Errors as clients of the REST API see them: which HTTP status, type and code each becomes.

    gRPC status of the router ─┐
    RequestError of our own   ─┼─► Failure ─► {"error": {"message", "type", "param", "code"}}
    HTTP errors of the server ─┘

The types and codes are OpenAI's where OpenAI has one.
"""

import math
from typing import NamedTuple

import grpc
import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import InternalError, RequestError

from .openai_answers import ErrorBody, ErrorDetail

log = structlog.get_logger()

CLIENT_CLOSED_REQUEST = 499
"""nginx's number for a client that left; it is only ever counted, nobody reads it."""


class ClientGone(Exception):
    """The client closed its connection: there is nobody to answer."""


class Kind(NamedTuple):
    """What an error is to an HTTP client."""

    status: int
    type: str
    code: str


_BY_GRPC_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: Kind(400, "invalid_request_error", "invalid_value"),
    grpc.StatusCode.UNAUTHENTICATED: Kind(401, "authentication_error", "invalid_api_key"),
    grpc.StatusCode.PERMISSION_DENIED: Kind(403, "permission_error", "permission_denied"),
    grpc.StatusCode.NOT_FOUND: Kind(404, "not_found_error", "model_not_found"),
    grpc.StatusCode.FAILED_PRECONDITION: Kind(409, "conflict_error", "failed_precondition"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind(429, "rate_limit_error", "rate_limit_exceeded"),
    grpc.StatusCode.CANCELLED: Kind(CLIENT_CLOSED_REQUEST, "cancelled_error", "cancelled"),
    grpc.StatusCode.INTERNAL: Kind(500, "server_error", "internal_error"),
    grpc.StatusCode.UNIMPLEMENTED: Kind(501, "not_implemented_error", "not_implemented"),
    grpc.StatusCode.UNAVAILABLE: Kind(503, "service_unavailable_error", "unavailable"),
    grpc.StatusCode.DEADLINE_EXCEEDED: Kind(504, "timeout_error", "deadline_exceeded"),
}

_BY_HTTP_STATUS = {
    404: Kind(404, "not_found_error", "route_not_found"),
    405: Kind(405, "invalid_request_error", "method_not_allowed"),
    408: Kind(408, "timeout_error", "request_timeout"),
    413: Kind(413, "invalid_request_error", "body_too_large"),
    431: Kind(431, "invalid_request_error", "headers_too_large"),
    503: Kind(503, "service_unavailable_error", "too_many_connections"),
}
_BAD_REQUEST = Kind(400, "invalid_request_error", "bad_request")


def error_body(error: RequestError) -> bytes:
    """Return the JSON that tells a client about the error."""
    kind = _BY_GRPC_CODE[error.code]
    detail = ErrorDetail(error.message, kind.type, error.field or None, kind.code)
    return msgspec.json.encode(ErrorBody(detail))


def http_error_body(status: int, message: str) -> bytes:
    """Return the JSON for an error of HTTP itself: no route, too large, too slow."""
    kind = _BY_HTTP_STATUS.get(status, _BAD_REQUEST)
    return msgspec.json.encode(ErrorBody(ErrorDetail(message, kind.type, None, kind.code)))


def error_response(error: RequestError) -> Response:
    headers = {}
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    status = _BY_GRPC_CODE[error.code].status
    return Response(error_body(error), status, headers, media_type="application/json")


def as_request_error(error: Exception, request_id: str) -> RequestError:
    """Return what the client may know of `error`; what it may not know goes to the log."""
    if isinstance(error, RequestError):
        return error
    log.error("internal error", request_id=request_id, exc_info=error)
    return InternalError(f"The server failed; its log has more under request id {request_id}.")


async def handle_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_response(error)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code == 404:
        message = f"There is no route {request.scope['path']}."
    elif error.status_code == 405:
        allowed = (error.headers or {})["Allow"]
        message = f"{request.method} is not allowed on {request.scope['path']}; use {allowed}."
    return Response(
        http_error_body(error.status_code, message),
        error.status_code,
        error.headers,
        media_type="application/json",
    )
