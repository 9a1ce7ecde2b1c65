"""Which HTTP status, body and exception of the openai client each failure becomes."""

from typing import Any

import grpc
import openai
import pytest

from octavo import errors
from octavo.errors import RequestError
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import MODEL, BareStatus, FakeRouter, fail_with

CHAT = "/v1/chat/completions"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


async def failed(gateway: Gateway, body: dict[str, Any], status: int) -> dict[str, Any]:
    response = await gateway.http.post(CHAT, json=body)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


STATUSES: list[tuple[type[RequestError], int, str, str]] = [
    (errors.InvalidArgument, 400, "invalid_request_error", "invalid_value"),
    (errors.Unauthenticated, 401, "authentication_error", "invalid_api_key"),
    (errors.PermissionDenied, 403, "permission_error", "permission_denied"),
    (errors.NotFound, 404, "not_found_error", "model_not_found"),
    (errors.FailedPrecondition, 409, "conflict_error", "failed_precondition"),
    (errors.Overloaded, 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.InternalError, 500, "server_error", "internal_error"),
    (errors.Unsupported, 501, "not_implemented_error", "not_implemented"),
    (errors.Unavailable, 503, "service_unavailable_error", "unavailable"),
    (errors.DeadlineExceeded, 504, "timeout_error", "deadline_exceeded"),
]


@pytest.mark.parametrize("stream", [False, True])
async def test_every_status_of_the_router_has_its_http_status(
    gateway: Gateway, fake_router: FakeRouter, stream: bool
) -> None:
    for error_type, status, kind, code in STATUSES:
        fake_router.script = fail_with(error_type("A sentence.", field="messages"))
        error = await failed(gateway, BODY | {"stream": stream}, status)
        assert error == {"message": "A sentence.", "type": kind, "param": "messages", "code": code}


async def test_the_openai_client_raises_its_own_exceptions(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    for error, exception in (
        (errors.InvalidArgument("x", field="n"), openai.BadRequestError),
        (errors.NotFound("x"), openai.NotFoundError),
        (errors.Overloaded("x", retry_after_s=0.2), openai.RateLimitError),
        (errors.InternalError("x"), openai.InternalServerError),
    ):
        fake_router.script = fail_with(error)
        with pytest.raises(exception) as raised:
            await gateway.openai.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hello"}]
            )
        assert raised.value.param == (error.field or None)
        assert raised.value.response.headers.get("retry-after") == (
            "1" if error.retry_after_s else None
        )


async def test_what_the_router_did_not_mean_for_clients_stays_inside(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    fake_router.script = fail_with(ValueError("secret of line 7"))
    error = await failed(gateway, BODY, 500)
    assert error["message"] == "The router failed; its log says why."


async def test_a_call_that_the_router_cancels_may_be_sent_again(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    fake_router.script = fail_with(BareStatus(grpc.StatusCode.CANCELLED, ""))
    assert (await failed(gateway, BODY, 503))["message"].startswith("The router cannot be reached")


async def test_grpcs_own_limits_are_told_without_grpcs_words(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    status = BareStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!")
    fake_router.script = fail_with(status)
    response = await gateway.http.post(CHAT, json=BODY)
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert "Concurrent" not in response.text


@pytest.mark.parametrize("path", ["/ready", "/v1/models", "/v1/models/x"])
async def test_without_a_router_there_is_no_address_in_the_answer(
    gateway_alone: Gateway, path: str
) -> None:
    for response in (
        await gateway_alone.http.get(path),
        await gateway_alone.http.post(CHAT, json=BODY),
    ):
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "sock" not in response.text
    assert (await gateway_alone.http.get("/health")).status_code == 200


async def test_a_bug_of_ours_is_logged_and_not_shown(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("octavo.gateway.openai_api.decode_body", broken)
    response = await gateway.http.post(CHAT, json=BODY, headers={"x-request-id": "label-7"})
    assert response.status_code == 500
    assert "label-7" in response.json()["error"]["message"]
    assert "secret" not in response.text
    logged = capsys.readouterr().out
    assert "label-7" in logged and "KeyError" in logged


async def test_routes_and_methods_that_do_not_exist(gateway: Gateway) -> None:
    response = await gateway.http.get("/v1/nothing")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "There is no route /v1/nothing."
    response = await gateway.http.get(CHAT)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["error"]["message"] == f"GET is not allowed on {CHAT}; use POST."
    # No redirect, which would be built from the Host header.
    response = await gateway.http.get("/health/", headers={"host": "evil.example"})
    assert response.status_code == 404
