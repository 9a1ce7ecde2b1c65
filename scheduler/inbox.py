"""Requests on their way into the scheduler: a bounded amount of work in each turn of the loop."""

import asyncio
from dataclasses import dataclass

from octavo.errors import FailedPrecondition, RequestError
from octavo.v1 import scheduling_pb2

from .scheduler import Scheduler

TOKENS_PER_TURN = 32_768
"""Prompt tokens taken in one turn: about two milliseconds of work, so that a burst of long prompts
does not hold up the tokens of those that run. The last request taken may go over it."""

_TOKENS_PER_REQUEST = 128
"""What a request costs beside its prompt, in the work of so many prompt tokens."""


@dataclass(slots=True)
class _Waiting:
    request: scheduling_pb2.SubmitRequest
    is_taken: asyncio.Future[None]


class Inbox:
    """Requests that have arrived, but are not in the scheduler yet. Only StepLoop calls this."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: dict[bytes, _Waiting] = {}
        self._tokens_left = TOKENS_PER_TURN

    @property
    def has_waiting(self) -> bool:
        return bool(self._waiting)

    async def submit(self, request: scheduling_pb2.SubmitRequest, now_ns: int) -> None:
        """Hand the request to the scheduler, now or in a later turn; raises its RequestError.

        If the caller is cancelled meanwhile, the request is forgotten.
        """
        if request.request_key in self._waiting:
            return
        if not self._waiting and self._tokens_left > 0:
            self._take(request, now_ns)
            return
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._waiting[request.request_key] = waiting
        await waiting.is_taken

    def begin_turn(self, now_ns: int) -> None:
        """Take waiting requests, oldest first, as far as the work of a turn goes."""
        self._tokens_left = TOKENS_PER_TURN
        while self._waiting and self._tokens_left > 0:
            self.expedite(next(iter(self._waiting)), now_ns)

    def expedite(self, request_key: bytes, now_ns: int) -> None:
        """Take this request now if it waits, so that what is said of it next finds it."""
        waiting = self._waiting.pop(request_key, None)
        if waiting is None or waiting.is_taken.done():
            return
        try:
            self._take(waiting.request, now_ns)
        except RequestError as error:
            waiting.is_taken.set_exception(error)
        else:
            waiting.is_taken.set_result(None)

    def drop(self, router_id: bytes) -> None:
        """Refuse the waiting requests of a router that has left."""
        for key, waiting in list(self._waiting.items()):
            if waiting.request.router_id == router_id:
                del self._waiting[key]
                if not waiting.is_taken.done():
                    waiting.is_taken.set_exception(FailedPrecondition("the router has detached"))

    def _take(self, request: scheduling_pb2.SubmitRequest, now_ns: int) -> None:
        self._tokens_left -= len(request.prompt_token_ids) + _TOKENS_PER_REQUEST
        self._scheduler.submit(request, now_ns)
