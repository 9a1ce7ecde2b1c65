"""The OpenAPI document: the table of operations, and the types of their bodies as JSON schemas.

OpenAPI 3.2, the first version that can say what the events of a stream hold.
"""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.version import VERSION

from .key_guard import OPEN_PATHS
from .openai_answers import ErrorBody
from .operations import Operation
from .ranges import RANGES

Json = dict[str, Any]

_DESCRIPTION = (
    "OpenAI's API with vLLM's additions. Fields that are not listed are ignored, or, where they"
    " would change the answer, refused by name with status 400."
)
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
"""Starlette's: a name, and a convertor that OpenAPI does not know."""


class DocumentRoute:
    """Answers /openapi.json."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._content = msgspec.json.encode(openapi_document(operations))

    async def get(self, _: Request) -> Response:
        return Response(self._content, media_type="application/json")


def openapi_document(operations: Sequence[Operation]) -> Json:
    types = {kind for each in operations for kind in (each.body, each.answer, each.chunk) if kind}
    schemas, components = msgspec.json.schema_components(
        (ErrorBody, *types), ref_template="#/components/schemas/{name}"
    )
    for body in (each.body for each in operations if each.body):
        _tell_ranges(components[body.__name__])
    schema_of = dict(zip((ErrorBody, *types), schemas, strict=True))
    paths: dict[str, Json] = {}
    for operation in operations:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _described(operation, schema_of)
    return {
        "openapi": "3.2.0",
        "info": {"title": "Octavo", "version": VERSION, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _tell_ranges(body: Json) -> None:
    for name, schema in body["properties"].items():
        schema.update(RANGES.get(name, {}))


def _described(operation: Operation, schema_of: dict[Any, Json]) -> Json:
    is_open = operation.path in OPEN_PATHS
    described: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        # The empty one: a server that was started without keys wants none.
        "security": [] if is_open else [{"key": []}, {}],
        "responses": _responses(operation, schema_of, is_open=is_open),
    }
    if names := _PARAMETER.findall(operation.path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[operation.body]}},
        }
    return described


def _responses(operation: Operation, schema_of: dict[Any, Json], *, is_open: bool) -> Json:
    content: Json = {}
    if operation.answer is None:
        content["text/plain"] = {"schema": {"type": "string"}}
    else:
        content["application/json"] = {"schema": schema_of[operation.answer]}
    if operation.chunk:
        content["text/event-stream"] = {"itemSchema": _event(schema_of[operation.chunk])}
    responses = {"200": {"description": "The answer.", "content": content}}
    error = {"application/json": {"schema": schema_of[ErrorBody]}}
    for status in sorted({*operation.errors, *(() if is_open else (401,))}):
        description = f"{HTTPStatus(status).phrase}."
        responses[str(status)] = {"description": description, "content": error}
    return responses


def _event(chunk: Json) -> Json:
    """Return the schema of an event: a chunk, an error in place of the rest, or the end."""
    holds = {"oneOf": [chunk, {"$ref": "#/components/schemas/ErrorBody"}]}
    data = {"contentMediaType": "application/json", "contentSchema": holds, "type": "string"}
    return {
        "type": "object",
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, data]}},
        "required": ["data"],
    }
