"""openapi.json: what it says of the routes is what they do."""

from typing import Any

import jsonschema_rs
import pytest
from starlette.routing import Route

from octavo.gateway.in_flight import InFlight
from octavo.gateway.metrics import GatewayMetrics
from octavo.gateway.openai_api import create_app
from octavo.gateway.router_client import RouterClient
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import MODEL
from tests.gateway.sse import chunks

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
async def document(gateway: Gateway) -> Any:
    response = await gateway.http.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def test_every_route_is_described_and_nothing_else(document: Any) -> None:
    async with RouterClient("unix:/nowhere") as router:
        app = create_app(router, InFlight(), GatewayMetrics())
    served = {
        (route.path.replace(":path", ""), method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described == {(path, method) for path, method in served if method != "head"}


async def test_routes_without_a_key_are_those_that_load_balancers_ask(document: Any) -> None:
    open_paths = {
        path
        for path, item in document["paths"].items()
        for operation in item.values()
        if operation["security"] == []
    }
    assert open_paths == {"/health", "/ready", "/version"}


WITH_LOGPROBS = HELLO | {"logprobs": True, "top_logprobs": 2, "return_token_ids": True}
ECHOED = {"model": MODEL, "prompt": ["a", "b"], "logprobs": 2, "echo": True, "n": 2}
WITH_TOKEN_IDS = {"model": MODEL, "prompt": "a", "return_token_ids": True}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, HELLO | {"prompt_logprobs": 1, "n": 2}),
        (CHAT, WITH_LOGPROBS),
        (CHAT, WITH_LOGPROBS | STREAM),
        (COMPLETIONS, ECHOED),
        (COMPLETIONS, ECHOED | STREAM),
        (COMPLETIONS, WITH_TOKEN_IDS),
        (COMPLETIONS, WITH_TOKEN_IDS | STREAM),
    ],
)
async def test_answers_are_as_described(
    gateway: Gateway, document: Any, path: str, body: dict[str, Any]
) -> None:
    response = await gateway.http.post(path, json=body)
    assert response.status_code == 200, response.text
    described = document["paths"][path]["post"]["responses"]["200"]["content"]
    media_type = response.headers["content-type"].partition(";")[0]
    if "stream" not in body:
        check(response.json(), described[media_type]["schema"], document)
        return
    data = described[media_type]["itemSchema"]["properties"]["data"]["anyOf"][1]
    for chunk in chunks(response.content):
        check(chunk, data["contentSchema"], document)


def check(value: Any, schema: Any, document: Any) -> None:
    """Fail unless the schema, with no other properties than it names, takes the value."""
    components = {
        name: component | {"additionalProperties": False}
        for name, component in document["components"]["schemas"].items()
    }
    jsonschema_rs.validate(schema | {"components": {"schemas": components}}, value)
