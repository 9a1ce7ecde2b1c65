"""Text to token ids and back, through the router."""

import json
from typing import Any

import pytest

from octavo.v1.inference_pb2 import ChatMessage
from octavo.v1.tokenizer_pb2 import Conversation, TokenizeRequest
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import MODEL, PROMPT_TOKEN_IDS, PROMPT_TOKEN_STRS, FakeRouter


async def test_a_prompt_or_a_conversation_becomes_token_ids(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    wanted = {"count": 4, "max_model_len": 8192, "tokens": PROMPT_TOKEN_IDS, "token_strs": None}
    for fields in (
        {"prompt": "a"},
        {"prompt": "", "add_special_tokens": False, "tools": []},
        {"messages": [{"role": "user", "content": "b"}], "add_generation_prompt": True},
    ):
        answer = await gateway.http.post("/tokenize", json={"model": MODEL} | fields)
        assert answer.json() == wanted
    conversation = Conversation(
        messages=[ChatMessage(role="user", content="b")], add_generation_prompt=True
    )
    assert fake_router.tokenizations == [
        TokenizeRequest(model=MODEL, text="a"),
        TokenizeRequest(model=MODEL, text="", add_special_tokens=False),
        TokenizeRequest(model=MODEL, conversation=conversation),
    ]


async def test_the_model_may_be_left_to_the_router(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    for fields in ({}, {"model": None}, {"model": ""}):
        answer = await gateway.http.post("/tokenize", json={"prompt": "a"} | fields)
        assert answer.status_code == 200
    assert fake_router.tokenizations == [TokenizeRequest(text="a")] * 3


async def test_what_shapes_a_conversation_reaches_the_router(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    fields = {
        "messages": [{"role": "assistant", "content": "b"}],
        "add_generation_prompt": False,
        "continue_final_message": True,
        "return_token_strs": True,
        "tools": [tool],
    }
    answer = await gateway.http.post("/tokenize", json={"model": MODEL} | fields)
    assert answer.json()["token_strs"] == PROMPT_TOKEN_STRS
    [request] = fake_router.tokenizations
    assert request.conversation == Conversation(
        messages=[ChatMessage(role="assistant", content="b")],
        add_generation_prompt=False,
        continue_final_message=True,
        tools_json=json.dumps([tool], separators=(",", ":")),
    )


async def test_token_ids_become_text(gateway: Gateway) -> None:
    answer = await gateway.http.post("/detokenize", json={"model": MODEL, "tokens": [7, 8]})
    assert answer.json() == {"prompt": "7 8"}


@pytest.mark.parametrize(
    ("path", "fields", "param", "message"),
    [
        ("/tokenize", {}, "prompt", "Send either prompt or messages."),
        ("/tokenize", {"prompt": "a", "messages": []}, "prompt", "Send either prompt or messages."),
        (
            "/tokenize",
            {"prompt": 1},
            "prompt",
            "prompt is wrong: expected string or null, got integer.",
        ),
        (
            "/tokenize",
            {"messages": [], "chat_template": "{{ 1 }}"},
            "chat_template",
            "chat_template is not offered yet; leave it out.",
        ),
        ("/detokenize", {}, "tokens", "tokens is missing."),
        (
            "/detokenize",
            {"tokens": [-1]},
            "tokens[0]",
            "tokens[0] is wrong: expected integer >= 0.",
        ),
    ],
)
async def test_what_is_wrong_is_told(
    gateway: Gateway, path: str, fields: dict[str, Any], param: str, message: str
) -> None:
    answer = await gateway.http.post(path, json={"model": MODEL} | fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["message"]) == (param, message)
