"""Counts the requests that are open, and turns new ones away while the router drains."""

import asyncio
import contextlib
from collections.abc import Iterator

from octavo.errors import Unavailable

_RETRY_AFTER_S = 1.0


class OpenRequests:
    """The door of the router."""

    def __init__(self) -> None:
        self.count = 0
        self.is_draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request as open for the length of the block; raises Unavailable when draining."""
        if self.is_draining:
            raise Unavailable(
                "this router is shutting down; send the request again",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.count -= 1
            if self.count == 0:
                self._idle.set()

    async def drain(self, timeout_s: float) -> None:
        """Let nothing in any more, and return when nothing is open or the time is up."""
        self.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
