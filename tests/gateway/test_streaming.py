"""Event streams: what their chunks hold, and how they end."""

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.errors import InternalError, Overloaded, Unavailable
from octavo.gateway.streaming import _encode_text
from octavo.v1.inference_pb2 import GenerateRequest
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import (
    MODEL,
    PIECES,
    PROMPT_TOKEN_IDS,
    TOKEN_IDS,
    FakeRouter,
    fail_with,
    start_and_fail_with,
    start_and_hang,
)
from tests.gateway.sse import chunks, events

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]


async def stream(gateway: Gateway, path: str, **body: Any) -> list[dict[str, Any]]:
    response = await gateway.http.post(path, json={"model": MODEL, "stream": True} | body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return chunks(response.content)


def choices(received: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice for chunk in received for choice in chunk["choices"]]


async def test_a_chat_streams_its_role_its_text_and_its_end(gateway: Gateway) -> None:
    received = await stream(gateway, CHAT, messages=HELLO)
    assert len({(c["id"], c["created"]) for c in received}) == 1
    assert {c["object"] for c in received} == {"chat.completion.chunk"}
    going_on = {"index": 0, "logprobs": None, "finish_reason": None}
    assert choices(received) == [
        going_on | {"delta": {"role": "assistant", "content": ""}},
        *(going_on | {"delta": {"content": piece}} for piece in PIECES),
        going_on | {"delta": {}, "finish_reason": "stop", "stop_reason": None},
    ]
    assert all("usage" not in chunk for chunk in received)


@pytest.mark.parametrize(
    ("path", "prompt", "num_choices"),
    [
        (CHAT, {"messages": HELLO}, 1),
        (CHAT, {"messages": HELLO, "n": 3}, 3),
        (COMPLETIONS, {"prompt": "a"}, 1),
        (COMPLETIONS, {"prompt": ["a", "b", "c"], "n": 2}, 6),
    ],
)
async def test_a_stream_adds_up_to_the_answer_in_one_piece(
    gateway: Gateway, path: str, prompt: dict[str, Any], num_choices: int
) -> None:
    body = prompt | {"return_token_ids": True, "stream_options": {"include_usage": True}}
    received = await stream(gateway, path, **body)
    texts: defaultdict[int, str] = defaultdict(str)
    token_ids: defaultdict[int, list[int]] = defaultdict(list)
    finish_reasons = {}
    for choice in choices(received):
        content = choice["delta"].get("content", "") if path == CHAT else choice["text"]
        texts[choice["index"]] += content
        token_ids[choice["index"]] += choice.get("token_ids", [])
        if choice["finish_reason"]:
            finish_reasons[choice["index"]] = choice["finish_reason"]
    whole = (
        await gateway.http.post(path, json={"model": MODEL, "return_token_ids": True} | prompt)
    ).json()
    assert len(whole["choices"]) == num_choices
    for choice in whole["choices"]:
        index = choice["index"]
        text = choice["message"]["content"] if path == CHAT else choice["text"]
        assert (texts[index], token_ids[index]) == (text, choice["token_ids"])
        assert finish_reasons[index] == choice["finish_reason"]
    assert received[-1]["choices"] == []
    assert received[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in received[:-1])


async def test_usage_so_far_comes_with_every_chunk_if_asked_for(gateway: Gateway) -> None:
    options = {"continuous_usage_stats": True}
    received = await stream(gateway, CHAT, messages=HELLO, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in received]
    assert counts == [0, 1, 2, 3, 3]
    assert {chunk["usage"]["prompt_tokens"] for chunk in received} == {len(PROMPT_TOKEN_IDS)}


async def test_prompt_token_ids_come_first_where_vllm_puts_them(gateway: Gateway) -> None:
    chat = await stream(gateway, CHAT, messages=HELLO, n=2, return_token_ids=True)
    assert chat[0]["prompt_token_ids"] == PROMPT_TOKEN_IDS
    assert all("prompt_token_ids" not in chunk for chunk in chat[1:])
    completion = await stream(gateway, COMPLETIONS, prompt=["a", "b"], return_token_ids=True)
    firsts = choices(completion[:2])
    assert [choice["prompt_token_ids"] for choice in firsts] == [PROMPT_TOKEN_IDS] * 2
    for index in (0, 1):
        own = [choice for choice in choices(completion) if choice["index"] == index]
        assert sum((choice.get("token_ids", []) for choice in own), []) == TOKEN_IDS


async def test_an_error_before_the_first_event_is_a_status(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    fake_router.script = fail_with(Overloaded("The queue is full.", retry_after_s=2.5))
    body = {"model": MODEL, "messages": HELLO, "stream": True}
    response = await gateway.http.post(CHAT, json=body)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.json()["error"]["message"] == "The queue is full."


@pytest.mark.parametrize("prompt", ["a", ["a", "b"]])
async def test_an_error_after_the_first_event_ends_the_stream(
    gateway: Gateway, fake_router: FakeRouter, prompt: str | list[str]
) -> None:
    fake_router.script = start_and_fail_with(Unavailable("The model went away."))
    body = {"model": MODEL, "prompt": prompt, "stream": True}
    response = await gateway.http.post(COMPLETIONS, json=body)
    assert response.status_code == 200
    *_, error, done = events(response.content)
    assert done == "[DONE]"
    assert json.loads(error)["error"]["message"] == "The model went away."
    assert json.loads(error)["error"]["code"] == "unavailable"


async def test_an_error_in_one_prompt_ends_the_others(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    async def script(request: Any) -> Any:
        if request.text == "bad":
            # Not before the other has come so far that it has to be ended.
            while fake_router.num_running < 2:
                await fake_router.arrived.get()
            raise InternalError("NaN in the logits.")
        async for event in start_and_hang(request):
            yield event

    fake_router.script = script
    body = {"model": MODEL, "prompt": ["good", "bad"], "stream": True}
    response = await gateway.http.post(COMPLETIONS, json=body)
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "NaN in the logits."
    ended = await fake_router.cancelled.get()
    assert isinstance(ended, GenerateRequest) and ended.text == "good"


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_on_one_line(text: str) -> None:
    encoded = _encode_text(text)
    assert json.loads(encoded) == text
    assert len(encoded.decode().splitlines()) == 1
