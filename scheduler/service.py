"""The Scheduling service: translates between the routers' calls and the step loop."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from octavo.errors import (
    FailedPrecondition,
    InvalidArgument,
    RequestError,
    Unavailable,
    abort,
)
from octavo.v1 import scheduling_pb2, scheduling_pb2_grpc
from octavo.version import PROTOCOL_VERSION

from .sessions import RouterSession, RouterSessions
from .step_loop import StepLoop

SERVICE_NAME = "octavo.v1.Scheduling"

_KEY_BYTES = 16
_RETRY_AFTER_S = 0.5


@dataclass(frozen=True, slots=True)
class Engine:
    """What the service speaks for, once the workers are ready."""

    step_loop: StepLoop
    sessions: RouterSessions
    model: scheduling_pb2.ModelInfo


class SchedulingServicer(scheduling_pb2_grpc.SchedulingServicer):
    """Router ⇄ scheduler. An Attach that comes before the workers are ready waits for them."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._is_open = asyncio.Event()

    def open(self, engine: Engine) -> None:
        """Begin to serve."""
        self._engine = engine
        self._is_open.set()

    async def Attach(
        self,
        request_iterator: AsyncIterator[scheduling_pb2.AttachRequest],
        context: Any,
    ) -> None:
        try:
            hello = await _receive_hello(request_iterator)
            await self._is_open.wait()
            assert self._engine is not None
            await _serve_router(self._engine, hello, request_iterator, context)
        except RequestError as error:
            await abort(context, error)

    async def Submit(
        self,
        request: scheduling_pb2.SubmitRequest,
        context: Any,
    ) -> scheduling_pb2.SubmitResponse:
        try:
            if self._engine is None:
                raise Unavailable(
                    "the scheduler is waiting for its workers", retry_after_s=_RETRY_AFTER_S
                )
            _check_key("request_key", request.request_key)
            if request.router_id not in self._engine.sessions:
                raise FailedPrecondition("the router is not attached; open an Attach stream first")
            await self._engine.step_loop.submit(request)
        except RequestError as error:
            await abort(context, error)
        return scheduling_pb2.SubmitResponse()


async def _receive_hello(
    requests: AsyncIterator[scheduling_pb2.AttachRequest],
) -> scheduling_pb2.Hello:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("message") != "hello":
        raise FailedPrecondition("the first message of Attach has to be Hello")
    hello = first.hello
    if hello.protocol_version != PROTOCOL_VERSION:
        raise FailedPrecondition(
            f"the router speaks protocol version {hello.protocol_version}, the scheduler"
            f" {PROTOCOL_VERSION}; run the same release of both"
        )
    _check_key("router_id", hello.router_id)
    return hello


async def _serve_router(
    engine: Engine,
    hello: scheduling_pb2.Hello,
    requests: AsyncIterator[scheduling_pb2.AttachRequest],
    context: Any,
) -> None:
    """Send and receive until the router leaves or is cut off; then its requests end."""
    session = _attach(engine, hello)
    # The requests of an earlier stream have ended with it, so none that Hello names is known.
    welcome = scheduling_pb2.Welcome(protocol_version=PROTOCOL_VERSION, model=engine.model)
    session.put(scheduling_pb2.AttachResponse(welcome=welcome))
    session.put(scheduling_pb2.AttachResponse(load=engine.step_loop.load()))
    sender = asyncio.create_task(session.send_all(context.write))
    receiver = asyncio.create_task(_receive(engine, requests))
    try:
        done, _ = await asyncio.wait(
            {sender, receiver, session.cut_off}, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        sender.cancel()
        receiver.cancel()
        if engine.sessions.detach(session):
            engine.step_loop.lose_router(session.router_id)
    for ended in done:
        ended.result()


def _attach(engine: Engine, hello: scheduling_pb2.Hello) -> RouterSession:
    is_again = hello.router_id in engine.sessions
    session = engine.sessions.attach(hello)
    if is_again:
        engine.step_loop.lose_router(hello.router_id)
    return session


async def _receive(engine: Engine, requests: AsyncIterator[scheduling_pb2.AttachRequest]) -> None:
    async for request in requests:
        match request.WhichOneof("message"):
            case "abort":
                engine.step_loop.abort(request.abort)
            case "window":
                engine.step_loop.set_window(request.window)
            case "hello":
                raise FailedPrecondition("Hello may only be the first message of Attach")


def _check_key(field: str, key: bytes) -> None:
    if len(key) != _KEY_BYTES:
        raise InvalidArgument(f"{field} has {len(key)} bytes, not {_KEY_BYTES}", field=field)
