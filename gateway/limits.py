"""How much a client may send, and for how long: bytes are counted before anything is parsed."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

from .errors import ClientGone

MAX_CONNECTIONS = 4096
MAX_BODY_BYTES = 4 * 1024 * 1024
"""What the router takes as one gRPC message (WIRE §6)."""
MAX_HEADER_BYTES = 64 * 1024
"""Request line and headers together."""
MAX_HEADERS = 100
HEADER_TIMEOUT_S = 30.0
"""From the first byte of a request to the end of its headers."""
BODY_TIMEOUT_S = 120.0
"""From the end of the headers to the end of the body."""
KEEP_ALIVE_S = 75
"""How long a connection may stay idle between requests."""
LINGER_S = 30.0
"""How long a client may go on sending a body that was answered before its end."""
STALL_S = 60.0
"""How long a client may leave what was written to it unread; the router gives up before (30 s)."""

MAX_PROMPTS = 32
"""Prompts in one completions request; each is a request of its own to the router."""
MAX_OUTPUTS = 64
"""Outputs of one HTTP request: prompts × n."""
MAX_TOP_LOGPROBS = 20
MAX_PROMPT_LOGPROBS = 5
MAX_REQUEST_ID_CHARS = 128


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the request's body; raises HTTPException 413 or 408, or ClientGone."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise _too_large()
    chunks: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            more_body = True
            while more_body:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunks.append(message["body"])
                num_bytes += len(message["body"])
                if num_bytes > MAX_BODY_BYTES:
                    raise _too_large()
                more_body = message["more_body"]
    except TimeoutError:
        raise HTTPException(408, f"The body took longer than {BODY_TIMEOUT_S:.0f} s.") from None
    return b"".join(chunks)


def _too_large() -> HTTPException:
    return HTTPException(413, f"The body is larger than {MAX_BODY_BYTES} bytes; send less.")
