"""Sends one client its events, numbered, and gives up on a client that does not read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from octavo.v1 import inference_pb2

from .output_stream import SlowReader


class EventWriter:
    """The events of one call. They are written within `watched`."""

    def __init__(self, context: Any, stall_timeout_s: float) -> None:
        """`stall_timeout_s`: how long the client may not read."""
        self._context = context
        self._stall_timeout_s = stall_timeout_s
        self._loop = asyncio.get_running_loop()
        self._num_sent = 0
        self._writing_since_s: float | None = None
        """By the loop's clock; None: no write is under way."""
        self._timer: asyncio.TimerHandle

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Run the block, and end it with SlowReader when the client has not read for too long.

        One timer watches the whole call: a timeout around each write would cost more than the rest
        of our part in it.
        """
        try:
            async with asyncio.timeout(None) as limit:
                self._timer = self._loop.call_later(self._stall_timeout_s, self._watch, limit)
                try:
                    yield
                finally:
                    self._timer.cancel()
        except TimeoutError:
            if not limit.expired():
                raise
            raise SlowReader(
                f"the client has not read for {self._stall_timeout_s:g} s; its output was given up"
            ) from None

    async def write(self, event: inference_pb2.StreamEvent) -> None:
        event.sequence_number = self._num_sent
        self._num_sent += 1
        self._writing_since_s = self._loop.time()
        await self._context.write(event)
        self._writing_since_s = None

    def set_reading(self, is_reading: bool) -> None:
        """Take the word of a relay on whether the client reads what does not pass through here."""
        self._writing_since_s = None if is_reading else self._loop.time()

    def _watch(self, limit: asyncio.Timeout) -> None:
        """Let the limit expire as soon as a write has taken too long."""
        now_s = self._loop.time()
        since_s = now_s if self._writing_since_s is None else self._writing_since_s
        left_s = since_s + self._stall_timeout_s - now_s
        if left_s <= 0:
            limit.reschedule(now_s)
        else:
            self._timer = self._loop.call_later(left_s, self._watch, limit)
