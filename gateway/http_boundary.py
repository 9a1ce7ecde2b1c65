"""What surrounds every HTTP request: its label, its metrics, and the last catch for errors."""

import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import CLIENT_CLOSED_REQUEST, ClientGone, as_request_error, error_response
from .limits import MAX_REQUEST_ID_CHARS
from .metrics import GatewayMetrics

_REQUEST_ID = re.compile(rb"[!-~]{1,%d}" % MAX_REQUEST_ID_CHARS)
_NO_ROUTE = "none"


class HttpBoundary:
    """ASGI middleware. Puts `request_id` and `since` (monotonic seconds) into the scope."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        scope["since"] = time.monotonic()
        metrics = self._metrics
        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                message = {**message, "headers": headers}
            else:
                metrics.sent_bytes.inc(len(message["body"]))
            await send(message)

        metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_counted)
        except ClientGone:
            status = CLIENT_CLOSED_REQUEST
        except Exception as error:
            # The last catch: what nobody expected is logged and answered with 500.
            if status:
                raise
            response = error_response(as_request_error(error, request_id))
            await response(scope, receive, send_counted)
        finally:
            metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            seconds = time.monotonic() - scope["since"]
            metrics.count(route, scope["method"], status or CLIENT_CLOSED_REQUEST, seconds)


def _request_id(scope: Scope) -> str:
    """Return the client's label for its request if it is a plain one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode("ascii")
    return uuid.uuid4().hex
