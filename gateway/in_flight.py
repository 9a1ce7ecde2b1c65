"""The generations being answered: each ends when its client leaves, all when the gateway does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.types import Receive

from octavo.errors import Unavailable

from .errors import ClientGone

_RETRY_AFTER_S = 1.0
_CUT_S = 5.0
"""How long requests that were cut may take to tell their clients."""


@dataclass(eq=False, slots=True)
class _Scope:
    """One generation: the task that answers it, and why it was ended from outside, if it was."""

    task: "asyncio.Task[object]"
    reason: Exception | None = None

    def end(self, reason: Exception) -> None:
        if self.reason is None:
            self.reason = reason
            self.task.cancel()


class InFlight:
    """Knows the running generations.

    Attributes:
        is_draining: no more are taken.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self._scopes: set[_Scope] = set()
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @contextlib.asynccontextmanager
    async def until_gone(self, receive: Receive) -> AsyncIterator[None]:
        """Run the block until it ends, or its client is gone, or it is cut by `drain`.

        The block is cancelled as by asyncio.timeout, whose way of telling its own cancellation
        from others' this follows. The request's body must have been read.

        Raises:
            ClientGone: the client closed its connection.
            Unavailable: the gateway is draining.
        """
        if self.is_draining:
            raise _draining()
        task = asyncio.current_task()
        assert task is not None
        scope = _Scope(task)
        self._scopes.add(scope)
        self._is_idle.clear()
        watcher = asyncio.create_task(_watch(receive, scope))
        try:
            yield
        except BaseException as error:
            reason = scope.reason
            is_cancelled = isinstance(error, asyncio.CancelledError)
            # A failure that came first goes on, and so does a cancellation that is not ours.
            if reason is None or task.uncancel() > 0 or not is_cancelled:
                raise
            raise reason from None
        finally:
            watcher.cancel()
            self._scopes.discard(scope)
            if not self._scopes:
                self._is_idle.set()

    async def drain(self, timeout_s: float) -> None:
        """Take no more, wait for those that run, and cut those that still run after `timeout_s`."""
        self.is_draining = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_idle.wait(), timeout_s)
        for scope in self._scopes:
            scope.end(_draining())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_idle.wait(), _CUT_S)


async def _watch(receive: Receive, scope: _Scope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.end(ClientGone())


def _draining() -> Unavailable:
    message = "The server is shutting down; send the request again in a moment."
    return Unavailable(message, retry_after_s=_RETRY_AFTER_S)
