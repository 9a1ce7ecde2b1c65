"""uvicorn's HTTP/1.1 connection with our error bodies, and limits: connections, headers, seconds.

uvicorn's protocol over httptools accepts headers of any size, at any pace, and waits for a client
that does not read for as long as the client likes (0.54).
"""

import asyncio
import http

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import http_error_body
from .limits import (
    HEADER_TIMEOUT_S,
    LINGER_S,
    MAX_CONNECTIONS,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    STALL_S,
)


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection. A timer runs while headers are awaited, and while an answered body drains.

    Another runs while what was written is not read.
    """

    _timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _num_header_bytes = 0
    _are_headers_complete = False
    _are_headers_too_large = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, f"{MAX_CONNECTIONS} connections are open, which is the limit.")
            return
        self._start_timer(HEADER_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Not close(), which would wait for the client to read.
        self._stall_timer = self.loop.call_later(STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_stall_timer()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._are_headers_complete:
            super().data_received(data)
            return
        if self._timer is None:
            self._start_timer(HEADER_TIMEOUT_S)
        self._num_header_bytes += len(data)
        super().data_received(data)
        # A header that is still being received has not been handed to on_header yet.
        if (
            not self._are_headers_complete
            and self._num_header_bytes > MAX_HEADER_BYTES
            and not self.transport.is_closing()
        ):
            self._are_headers_too_large = True
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        num_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if num_bytes > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            self._are_headers_too_large = True
            raise HttpParserError("headers too large")
        self._are_headers_complete = True
        self._num_header_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._are_headers_complete = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body:
            # Closing now would reset the connection before the client has read the answer.
            self._start_timer(LINGER_S)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, or has too many headers, and close."""
        status = 400
        if self._are_headers_too_large:
            status = 431
            msg = f"The headers are larger than {MAX_HEADER_BYTES} bytes or {MAX_HEADERS} lines."
        self._refuse(status, msg)

    def _refuse(self, status: int, message: str) -> None:
        body = http_error_body(status, message)
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
