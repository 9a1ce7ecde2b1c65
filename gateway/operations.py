"""What each route takes and answers: the table that routes and openapi.json are made of."""

from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from .openai_answers import (
    ChatAnswer,
    ChatChunk,
    CompletionAnswer,
    CompletionChunk,
    Detokenized,
    ModelCard,
    ModelList,
    ServerStatus,
    ServerVersion,
    Tokenized,
)
from .openai_types import ChatBody, CompletionBody, DetokenizeBody, TokenizeBody

_ANYWHERE = (431, 500, 503)
_FROM_ROUTER = (*_ANYWHERE, 429)
_FOR_BODIES = (*_FROM_ROUTER, 400, 404, 408, 413)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one route."""

    id: str
    """Its name in generated clients; OpenAI's where OpenAI has one."""
    method: str = "GET"
    path: str
    """As Starlette writes it: {name:path} takes slashes, too."""
    summary: str
    body: type[Struct] | None = None
    answer: Any
    """The type of the JSON; None: the answer is plain text."""
    chunk: type[Struct] | None = None
    """What an event holds, where the body may ask for a stream."""
    errors: tuple[int, ...] = _ANYWHERE
    """Statuses beside 200 and the 401 of routes that need a key."""


CHAT = Operation(
    id="createChatCompletion",
    method="POST",
    path="/v1/chat/completions",
    summary="Answers a conversation.",
    body=ChatBody,
    answer=ChatAnswer,
    chunk=ChatChunk,
    errors=_FOR_BODIES,
)
COMPLETION = Operation(
    id="createCompletion",
    method="POST",
    path="/v1/completions",
    summary="Continues one or more prompts.",
    body=CompletionBody,
    answer=CompletionAnswer,
    chunk=CompletionChunk,
    errors=_FOR_BODIES,
)
LIST_MODELS = Operation(
    id="listModels",
    path="/v1/models",
    summary="Lists the models that are served.",
    answer=ModelList,
    errors=_FROM_ROUTER,
)
GET_MODEL = Operation(
    id="retrieveModel",
    path="/v1/models/{model_id:path}",
    summary="Tells about one model.",
    answer=ModelCard,
    errors=(*_FROM_ROUTER, 404),
)
TOKENIZE = Operation(
    id="tokenize",
    method="POST",
    path="/tokenize",
    summary="Turns a text, or a conversation, into token ids.",
    body=TokenizeBody,
    answer=Tokenized,
    errors=_FOR_BODIES,
)
DETOKENIZE = Operation(
    id="detokenize",
    method="POST",
    path="/detokenize",
    summary="Turns token ids into text.",
    body=DetokenizeBody,
    answer=Detokenized,
    errors=_FOR_BODIES,
)
HEALTH = Operation(
    id="health",
    path="/health",
    summary="Answers as long as the gateway runs, whatever is behind it.",
    answer=ServerStatus,
)
READY = Operation(
    id="ready",
    path="/ready",
    summary="Answers if requests can be answered.",
    answer=ServerStatus,
    errors=_FROM_ROUTER,
)
VERSION = Operation(
    id="version", path="/version", summary="Tells the server's version.", answer=ServerVersion
)
METRICS = Operation(
    id="metrics", path="/metrics", summary="The gateway's metrics, for Prometheus.", answer=None
)
OPENAPI = Operation(
    id="openapi", path="/openapi.json", summary="This document.", answer=dict[str, Any]
)
