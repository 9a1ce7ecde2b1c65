"""What is open with keys, to whom, and what the router is shown."""

import openai
import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import FakeRouter

BODY = {"model": "m", "prompt": "x"}


@pytest.fixture
def api_keys() -> tuple[str, ...]:
    return ("first", "second")


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m", "/metrics", "/nowhere", "/ready/"])
@pytest.mark.parametrize("header", [None, "first", "Basic first", "Bearer firs", "Bearer"])
async def test_without_a_key_a_route_is_closed(
    gateway: Gateway, fake_router: FakeRouter, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"authorization": header}
    answer = await gateway.http.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert "API key" in error["message"] and "first" not in error["message"]
    assert not fake_router.authorizations


async def test_what_load_balancers_ask_is_open(gateway: Gateway, fake_router: FakeRouter) -> None:
    for path in ("/health", "/ready", "/version"):
        assert (await gateway.http.get(path)).status_code == 200
    assert fake_router.authorizations == ["Bearer first"]


async def test_the_router_is_shown_the_key_of_the_client(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    for key in ("second", "first"):
        headers = {"authorization": f"Bearer {key}"}
        answer = await gateway.http.post("/v1/completions", json=BODY, headers=headers)
        assert answer.status_code == 200
    assert fake_router.authorizations == ["Bearer second", "Bearer first"]


async def test_a_wrong_key_is_an_authentication_error_for_the_openai_client(
    gateway: Gateway,
) -> None:
    with pytest.raises(openai.AuthenticationError, match="the API key is wrong"):
        await gateway.openai.models.list()
