"""The router as the gateway sees it: generations, models, readiness. Nobody else calls it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from octavo.errors import InternalError, Overloaded, RequestError, Unavailable, from_rpc_error
from octavo.grpc_server import CHANNEL_OPTIONS
from octavo.v1.inference_pb2 import ChatRequest, GenerateRequest, Started, StreamEvent
from octavo.v1.inference_pb2_grpc import InferenceStub
from octavo.v1.models_pb2 import GetModelRequest, ListModelsRequest, Model
from octavo.v1.models_pb2_grpc import ModelsStub
from octavo.v1.tokenizer_pb2 import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from octavo.v1.tokenizer_pb2_grpc import TokenizerStub

from .key_guard import authorization
from .relay import Relay, RelayedCall, RelayedText

log = structlog.get_logger()

_NUM_CHANNELS = 8
_STREAMS_PER_CHANNEL = 500
"""A server takes 1,000 streams on a connection; past half of that another connection is opened."""
_UNARY_TIMEOUT_S = 5.0
_TOKENIZE_TIMEOUT_S = 30.0
_RETRY_AFTER_S = 1.0
"""A router that restarts is reached again within a second (CHANNEL_OPTIONS)."""


@dataclass
class _Connection:
    """One connection to the router, opened by its first call."""

    channel: grpc.aio.Channel
    relay: Relay
    num_streams: int = field(default=0)


class RouterStream:
    """One generation that runs at the router.

    Attributes:
        started: the first event; present once `wait_started` has returned.
    """

    started: Started

    def __init__(
        self,
        call: "grpc.aio.UnaryStreamCall[Any, StreamEvent]",
        relayed: RelayedCall,
        num_outputs: int,
    ) -> None:
        """`relayed`: where the text comes, if the router relays it."""
        self._call = call
        self._relayed = relayed
        self._num_outputs = num_outputs

    async def wait_started(self) -> None:
        """Return when the request is accepted; raises RequestError if it is not."""
        event = await self._read()
        if event is None or event.WhichOneof("event") != "started":
            raise _broken("the first event is not Started")
        self.started = event.started

    async def events(self) -> AsyncIterator[RelayedText | StreamEvent]:
        """Yield the events after Started, Usage as the last; raises RequestError.

        Of plain text, that which the router relayed.
        """
        if self.started.is_relayed:
            async for relayed in self._relayed_events():
                yield relayed
        is_complete = False
        while (event := await self._read()) is not None:
            is_complete = event.WhichOneof("event") == "usage"
            yield event
        if not is_complete:
            raise _broken("the stream ended before Usage")

    def cancel(self) -> None:
        """Tell the router to stop; does nothing where the stream has ended."""
        self._relayed.leave()
        self._call.cancel()

    async def _relayed_events(self) -> AsyncIterator[RelayedText | StreamEvent]:
        """Yield what is relayed: the text of all outputs, and their ends."""
        relayed, has_news = self._relayed, self._relayed.has_news
        self._call.add_done_callback(lambda _: has_news.set())
        while True:
            has_news.clear()
            while (event := relayed.take()) is not None:
                yield event
            if relayed.num_finished == self._num_outputs:
                return
            if relayed.error is not None:
                raise relayed.error
            # A call that is over in good order has only outrun its text.
            if self._call.done() and await self._call.code() != grpc.StatusCode.OK:
                return
            await has_news.wait()

    async def _read(self) -> StreamEvent | None:
        event = await _translated(self._call.read())
        return None if event is grpc.aio.EOF else event


class RouterClient:
    """Calls one router. Channels connect when first used and reconnect by themselves."""

    def __init__(self, address: str) -> None:
        # Without a pool of its own a channel would share the connection of the others.
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        self._connections = [
            _Connection(channel, Relay(channel))
            for channel in (
                grpc.aio.insecure_channel(address, options=options) for _ in range(_NUM_CHANNELS)
            )
        ]
        self._models = ModelsStub(self._connections[0].channel)
        self._tokenizer = TokenizerStub(self._connections[0].channel)
        self._health = health_pb2_grpc.HealthStub(self._connections[0].channel)

    async def __aenter__(self) -> "RouterClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            await connection.relay.close()
            await connection.channel.close()

    async def wait_connected(self) -> None:
        """Return when the router answers, however long that takes."""
        await self._connections[0].channel.channel_ready()

    @contextlib.asynccontextmanager
    async def generate(
        self, requests: Sequence[ChatRequest | GenerateRequest], request_id: str
    ) -> AsyncIterator[list[RouterStream]]:
        """Run the requests side by side; all of them end with the block, however it ends.

        Yields:
            Their streams, in order, once every one of them is accepted.
        Raises:
            RequestError: one was not accepted; none runs any more.
        """
        connection = self._least_used(len(requests))
        connection.num_streams += len(requests)
        stub = InferenceStub(connection.channel)
        metadata = _metadata(request_id)
        relay = connection.relay
        streams: list[RouterStream] = []
        try:
            for request in requests:
                method = stub.Chat if isinstance(request, ChatRequest) else stub.Generate
                relayed = relay.join(_metadata())
                call = method(request, metadata=metadata + relayed.metadata)
                streams.append(RouterStream(call, relayed, request.options.n or 1))
            await run_together([stream.wait_started() for stream in streams])
            yield streams
        finally:
            for stream in streams:
                stream.cancel()
            connection.num_streams -= len(requests)

    async def tokenize(self, request: TokenizeRequest, request_id: str) -> TokenizeResponse:
        metadata = _metadata(request_id)
        call = self._tokenizer.Tokenize(request, timeout=_TOKENIZE_TIMEOUT_S, metadata=metadata)
        response: TokenizeResponse = await _translated(call)
        return response

    async def detokenize(self, request: DetokenizeRequest, request_id: str) -> DetokenizeResponse:
        metadata = _metadata(request_id)
        call = self._tokenizer.Detokenize(request, timeout=_TOKENIZE_TIMEOUT_S, metadata=metadata)
        response: DetokenizeResponse = await _translated(call)
        return response

    async def list_models(self) -> list[Model]:
        response = await _translated(
            self._models.ListModels(
                ListModelsRequest(), timeout=_UNARY_TIMEOUT_S, metadata=_metadata()
            )
        )
        return list(response.models)

    async def get_model(self, name: str) -> Model:
        """Return the model; raises NotFound."""
        request = GetModelRequest(model=name)
        call = self._models.GetModel(request, timeout=_UNARY_TIMEOUT_S, metadata=_metadata())
        response = await _translated(call)
        model: Model = response.model
        return model

    async def check_ready(self) -> None:
        """Return if the router serves and has a model; raises Unavailable with the reason."""
        health = await _translated(
            self._health.Check(health_pb2.HealthCheckRequest(), timeout=_UNARY_TIMEOUT_S)
        )
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable("The router is starting or draining.", retry_after_s=_RETRY_AFTER_S)
        if not await self.list_models():
            raise Unavailable("No model is loaded yet.", retry_after_s=_RETRY_AFTER_S)

    def _least_used(self, num_streams: int) -> _Connection:
        """Return the first connection with room, else the one with fewest streams."""
        for connection in self._connections:
            if connection.num_streams + num_streams <= _STREAMS_PER_CHANNEL:
                return connection
        return min(self._connections, key=lambda connection: connection.num_streams)


def _metadata(request_id: str = "") -> tuple[tuple[str, str], ...]:
    """Return what every call carries: the request's label, and the key of who asks."""
    pairs = (("x-request-id", request_id), ("authorization", authorization.get()))
    return tuple(pair for pair in pairs if pair[1])


async def run_together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all to their end; the first that fails cancels the others, and its error is raised."""
    if len(work) == 1:
        await work[0]
        return
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in work:
                group.create_task(coroutine)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _translated(call: Any) -> Any:
    """Await a call, with its status as RequestError."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _request_error(error) from None


def _request_error(error: grpc.aio.AioRpcError) -> RequestError:
    """Return the router's own error, or what one stands for that gRPC itself made up.

    The router's statuses carry details, gRPC's do not; the texts of the latter hold addresses and
    other internals, so they go to the log.
    """
    if any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ()):
        return from_rpc_error(error)
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        message = "Too many requests are running; send this one again in a moment."
        return Overloaded(message, retry_after_s=_RETRY_AFTER_S)
    if error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ):
        # Ordinary while a router starts or restarts, when every probe of /ready comes by here.
        log.debug("router unreachable", code=error.code().name, details=error.details())
        message = "The router cannot be reached; send the request again in a moment."
        return Unavailable(message, retry_after_s=_RETRY_AFTER_S)
    log.error("router call failed", code=error.code().name, details=error.details())
    return InternalError("The router failed; its log says why.")


def _broken(reason: str) -> InternalError:
    log.error("router broke the protocol", reason=reason)
    return InternalError("The router failed; its log says why.")
