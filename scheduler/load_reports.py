"""Tells the routers how loaded the scheduler is and which prefixes it has, when that has changed.

The prefixes are told ten times more rarely than the rest: a digest costs half a millisecond.
"""

import asyncio

from octavo.v1 import scheduling_pb2

from .scheduler import Scheduler
from .sessions import RouterSessions

_LOAD_PERIOD_S = 0.1
_PREFIXES_PERIOD_S = 1.0


class LoadReports:
    """Sends Load messages to all routers; only the step loop calls this."""

    def __init__(self, scheduler: Scheduler, sessions: RouterSessions) -> None:
        self.is_draining = False
        self._scheduler = scheduler
        self._sessions = sessions
        self._last_load = scheduling_pb2.Load()
        self._last_prefixes = b""
        self._load_timer: asyncio.TimerHandle | None = None
        self._prefixes_timer: asyncio.TimerHandle | None = None

    def current(self) -> scheduling_pb2.Load:
        """Return all that there is to say, for a router that has just attached."""
        load = self._load()
        load.cached_prefixes = self._scheduler.cached_prefixes()
        return load

    def begin_drain(self) -> None:
        """Say at once that no new requests are taken."""
        self.is_draining = True
        self._send_load()

    def notice(self) -> None:
        """Something may have changed: say so within the periods."""
        loop = asyncio.get_running_loop()
        if self._load_timer is None:
            self._load_timer = loop.call_later(_LOAD_PERIOD_S, self._on_load_timer)
        if self._prefixes_timer is None:
            self._prefixes_timer = loop.call_later(_PREFIXES_PERIOD_S, self._on_prefixes_timer)

    def _load(self) -> scheduling_pb2.Load:
        load = self._scheduler.load()
        load.is_draining = self.is_draining
        return load

    def _on_load_timer(self) -> None:
        self._load_timer = None
        self._send_load()

    def _send_load(self) -> None:
        if (load := self._load()) != self._last_load:
            self._last_load = load
            self._sessions.broadcast(load)

    def _on_prefixes_timer(self) -> None:
        self._prefixes_timer = None
        if (prefixes := self._scheduler.cached_prefixes()) != self._last_prefixes:
            self._last_prefixes = prefixes
            load = self._load()
            load.cached_prefixes = prefixes
            self._sessions.broadcast(load)
