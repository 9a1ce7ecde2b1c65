"""The routes of the OpenAI API and those that operators use."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from octavo.errors import RequestError, Unavailable
from octavo.v1.inference_pb2 import ChatRequest, GenerateRequest
from octavo.v1.models_pb2 import Model
from octavo.version import VERSION

from . import operations
from .answer import CHAT, COMPLETION, AnswerStyle, relay
from .collecting import CollectedAnswer
from .errors import ClientGone, as_request_error, handle_http_exception, handle_request_error
from .http_boundary import HttpBoundary
from .in_flight import InFlight
from .json_body import decode_body
from .key_guard import KeyGuard
from .limits import read_body
from .metrics import GatewayMetrics
from .not_offered import with_not_offered
from .openai_answers import ModelCard, ModelList, ServerStatus, ServerVersion
from .openai_types import ChatBody, CompletionBody, GenerationBody
from .openapi import DocumentRoute
from .operations import Operation
from .router_client import RouterClient, RouterStream
from .router_requests import chat_requests, completion_requests
from .streaming import StreamedAnswer
from .tokenizer_api import TokenizerRoutes

BodyT = TypeVar("BodyT", bound=GenerationBody)
RouterRequest = ChatRequest | GenerateRequest
Endpoint = Callable[..., Any]
"""What Starlette takes: an ASGI application, or a function from request to response."""


def create_app(
    router: RouterClient, in_flight: InFlight, metrics: GatewayMetrics, api_keys: Sequence[str] = ()
) -> Starlette:
    """Return the ASGI application; without keys it is open."""
    chat = GenerationRoute(router, in_flight, metrics, ChatBody, chat_requests, CHAT)
    completions = GenerationRoute(
        router, in_flight, metrics, CompletionBody, completion_requests, COMPLETION
    )
    models = ModelRoutes(router)
    tokenizer = TokenizerRoutes(router)
    operator = OperatorRoutes(router, in_flight, metrics)
    endpoints: dict[Operation, Endpoint] = {
        operations.CHAT: chat,
        operations.COMPLETION: completions,
        operations.LIST_MODELS: models.list,
        operations.GET_MODEL: models.get,
        operations.TOKENIZE: tokenizer.tokenize,
        operations.DETOKENIZE: tokenizer.detokenize,
        operations.HEALTH: operator.health,
        operations.READY: operator.ready,
        operations.VERSION: operator.version,
        operations.METRICS: operator.metrics,
    }
    endpoints[operations.OPENAPI] = DocumentRoute([*endpoints, operations.OPENAPI]).get
    app = Starlette(
        routes=[
            Route(operation.path, endpoint, methods=[operation.method])
            for operation, endpoint in endpoints.items()
        ],
        middleware=[
            Middleware(HttpBoundary, metrics=metrics),
            Middleware(KeyGuard, keys=api_keys),
        ],
        exception_handlers={
            RequestError: handle_request_error,
            HTTPException: handle_http_exception,
        },
    )
    # A redirect would be built from the Host header, which anyone can write.
    app.router.redirect_slashes = False
    return app


class GenerationRoute(Generic[BodyT]):
    """One of the two routes that generate text: body → router requests → answer."""

    def __init__(
        self,
        router: RouterClient,
        in_flight: InFlight,
        metrics: GatewayMetrics,
        body_type: type[BodyT],
        to_requests: Callable[[BodyT, str], Sequence[RouterRequest]],
        style: AnswerStyle,
    ) -> None:
        self._router = router
        self._in_flight = in_flight
        self._metrics = metrics
        self._decoder = msgspec.json.Decoder(with_not_offered(body_type))
        self._to_requests = to_requests
        self._style = style

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = await read_body(scope, receive)
        self._metrics.received_bytes.inc(len(raw))
        body = decode_body(self._decoder, raw)
        requests = self._to_requests(body, scope["request_id"])
        if body.stream:
            await self._stream(body, requests, scope, receive, send)
        else:
            await self._collect(body, requests, scope, receive, send)

    async def _collect(
        self,
        body: BodyT,
        requests: Sequence[RouterRequest],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        async with self._in_flight.until_gone(receive):
            async with self._router.generate(requests, scope["request_id"]) as streams:
                answer = CollectedAnswer(self._style, body, streams)
                await relay(streams, body, answer)
        await _json(answer.to_json())(scope, receive, send)

    async def _stream(
        self,
        body: BodyT,
        requests: Sequence[RouterRequest],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Raise what fails before the first byte; end the stream with what fails later."""
        answer: StreamedAnswer | None = None
        try:
            async with self._in_flight.until_gone(receive):
                async with self._router.generate(requests, scope["request_id"]) as streams:
                    answer = self._open(body, streams, scope, send)
                    await answer.open()
                    await relay(streams, body, answer)
        except ClientGone:
            raise
        except Exception as error:
            # Whatever it is, a stream that has begun ends with an error the client can read.
            if answer is None:
                raise
            await answer.fail(as_request_error(error, scope["request_id"]))
        else:
            await answer.close()

    def _open(
        self, body: BodyT, streams: Sequence[RouterStream], scope: Scope, send: Send
    ) -> StreamedAnswer:
        timer = self._metrics.first_text_timer(scope["route"].path, scope["since"])
        return StreamedAnswer(self._style, body, streams, send, timer)


class ModelRoutes:
    """Which models are served."""

    def __init__(self, router: RouterClient) -> None:
        self._router = router

    async def list(self, _: Request) -> Response:
        models = await self._router.list_models()
        return _json(msgspec.json.encode(ModelList("list", [_card(model) for model in models])))

    async def get(self, request: Request) -> Response:
        model_id = request.path_params["model_id"]
        if not model_id:
            raise HTTPException(404)
        model = await self._router.get_model(model_id)
        return _json(msgspec.json.encode(_card(model)))


class OperatorRoutes:
    """What load balancers, supervisors and Prometheus ask."""

    def __init__(self, router: RouterClient, in_flight: InFlight, metrics: GatewayMetrics) -> None:
        self._router = router
        self._in_flight = in_flight
        self._metrics = metrics

    async def health(self, _: Request) -> Response:
        """The gateway runs, whatever is behind it."""
        return _json(msgspec.json.encode(ServerStatus("ok")))

    async def ready(self, _: Request) -> Response:
        """Requests can be answered."""
        if self._in_flight.is_draining:
            raise Unavailable("The gateway is shutting down.")
        await self._router.check_ready()
        return _json(msgspec.json.encode(ServerStatus("ready")))

    async def version(self, _: Request) -> Response:
        return _json(msgspec.json.encode(ServerVersion(VERSION)))

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.to_text(), media_type="text/plain; version=0.0.4")


def _card(model: Model) -> ModelCard:
    return ModelCard(model.id, "model", model.created_s, "octavo", model.root, model.max_model_len)


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
