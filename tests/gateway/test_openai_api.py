"""What the routes answer, and what they ask of the router."""

from typing import Any

import msgspec
import pytest

from octavo.v1.common_pb2 import SamplingParams, StopConditions
from octavo.v1.inference_pb2 import ChatMessage, ChatRequest, GenerateRequest
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import (
    MODEL,
    PROMPT_TOKEN_IDS,
    STOP_TOKEN_ID,
    TEXT,
    TOKEN_IDS,
    FakeRouter,
)

HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
TEXT_PART = {"type": "text", "text": "a"}
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


async def post(gateway: Gateway, path: str, **body: Any) -> Any:
    response = await gateway.http.post(path, json={"model": MODEL} | body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_chat_is_answered_as_openai_does(gateway: Gateway) -> None:
    answer = await post(gateway, CHAT, messages=HELLO, n=2)
    assert answer.pop("id").startswith("chatcmpl-")
    assert isinstance(answer.pop("created"), int)
    message = {"role": "assistant", "content": TEXT, "refusal": None}
    end = {"finish_reason": "stop", "stop_reason": None, "logprobs": None}
    assert answer == {
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": i, "message": message} | end for i in range(2)],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 6,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }


async def test_prompts_are_answered_prompt_by_prompt(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    answer = await post(gateway, COMPLETIONS, prompt=["a", "b", "c"], n=2)
    assert answer.pop("id").startswith("cmpl-")
    assert answer["object"] == "text_completion"
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert {choice["text"] for choice in answer["choices"]} == {TEXT}
    assert answer["usage"]["prompt_tokens"] == 3 * len(PROMPT_TOKEN_IDS)
    assert answer["usage"]["completion_tokens"] == 6 * len(TOKEN_IDS)
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 3 * 2
    generations = [r for r in fake_router.requests if isinstance(r, GenerateRequest)]
    assert {generation.text for generation in generations} == {"a", "b", "c"}


async def test_token_ids_are_returned_where_vllm_returns_them(gateway: Gateway) -> None:
    chat = await post(gateway, CHAT, messages=HELLO, return_token_ids=True)
    assert chat["prompt_token_ids"] == PROMPT_TOKEN_IDS
    assert chat["choices"][0]["token_ids"] == TOKEN_IDS
    completion = await post(gateway, COMPLETIONS, prompt=["a", "b"], return_token_ids=True)
    for choice in completion["choices"]:
        assert choice["prompt_token_ids"] == PROMPT_TOKEN_IDS
        assert choice["token_ids"] == TOKEN_IDS
    assert "token_ids" not in (await post(gateway, CHAT, messages=HELLO))["choices"][0]


async def test_a_stop_token_is_told_only_to_those_who_asked_for_it(gateway: Gateway) -> None:
    choice = (await post(gateway, CHAT, messages=HELLO, stop_token_ids=[STOP_TOKEN_ID]))["choices"]
    assert choice[0]["stop_reason"] == STOP_TOKEN_ID
    choice = (await post(gateway, CHAT, messages=HELLO, stop_token_ids=[7]))["choices"]
    assert choice[0]["stop_reason"] is None


async def test_every_field_of_a_chat_reaches_the_router(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    await gateway.http.post(
        CHAT,
        headers={"x-request-id": "my-label"},
        json={
            "model": MODEL,
            "messages": [
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": [TEXT_PART, TEXT_PART]},
                {"role": "assistant", "content": None},
                {"role": "user", "content": "c", "name": "Ada", "tool_calls": []},
            ],
            "temperature": 0.5,
            "top_p": 0.25,
            "top_k": 7,
            "n": 3,
            "seed": -2,
            "max_tokens": 9,
            "max_completion_tokens": 8,
            "stop": "END",
            "stop_token_ids": [5, 6],
            "ignore_eos": True,
            "return_token_ids": True,
            "priority": -4,
            "user": "someone",
            "min_p": 0.125,
            "presence_penalty": -1.5,
            "frequency_penalty": 1.5,
            "repetition_penalty": 1.25,
            "logit_bias": {"7": -100, "8": 0.5},
            "allowed_token_ids": [7, 8],
            "min_tokens": 2,
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "bad_words": ["darn"],
            "truncate_prompt_tokens": 100,
            "cache_salt": "mine",
            "logprobs": True,
            "top_logprobs": 2,
            "prompt_logprobs": 0,
            "add_generation_prompt": False,
            "continue_final_message": True,
            "tools": [TOOL],
            "tool_choice": "auto",
        },
    )  # fmt: skip
    wanted = ChatRequest(
        messages=[
            ChatMessage(role="system", content="Be short."),
            ChatMessage(role="user", content="a\na"),
            ChatMessage(role="assistant", content=""),
            ChatMessage(role="user", content="c", name="Ada"),
        ],
        add_generation_prompt=False,
        continue_final_message=True,
        tools_json=msgspec.json.encode([TOOL]).decode(),
    )
    wanted.options.model = MODEL
    wanted.options.sampling.CopyFrom(
        SamplingParams(
            temperature=0.5,
            top_p=0.25,
            top_k=7,
            min_p=0.125,
            presence_penalty=-1.5,
            frequency_penalty=1.5,
            repetition_penalty=1.25,
            logit_bias_token_ids=[7, 8],
            logit_bias_values=[-100, 0.5],
            allowed_token_ids=[7, 8],
        )
    )
    wanted.options.stop.CopyFrom(
        StopConditions(
            max_tokens=8,
            stop=["END"],
            stop_token_ids=[5, 6],
            ignore_eos=True,
            min_tokens=2,
            include_stop_str_in_output=True,
        )
    )
    wanted.options.skip_special_tokens = False
    wanted.options.bad_words.append("darn")
    wanted.options.truncate_prompt_tokens = 100
    wanted.options.cache_salt = "mine"
    wanted.options.logprobs = 2
    wanted.options.prompt_logprobs = 0
    wanted.options.n = 3
    wanted.options.seed = 2**64 - 2
    wanted.options.priority = -4
    wanted.options.request_id = "my-label"
    wanted.options.return_token_ids = True
    assert fake_router.requests == [wanted]
    assert fake_router.request_ids == ["my-label"]


async def test_absent_null_and_minus_one_are_the_same(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    names = ["temperature", "top_p", "top_k", "n", "seed", "max_tokens", "stop", "stream"]
    headers = {"x-request-id": "x"}
    for fields in ({}, dict.fromkeys(names), {"seed": -1, "top_k": -1}):
        body = {"model": MODEL, "messages": HELLO} | fields
        assert (await gateway.http.post(CHAT, json=body, headers=headers)).status_code == 200
    absent, null, minus_one = fake_router.requests
    assert absent == null
    assert not absent.options.HasField("seed") and not minus_one.options.HasField("seed")
    assert not absent.options.stop.HasField("max_tokens")
    assert minus_one.options.sampling.top_k == 0


@pytest.mark.parametrize(
    ("prompt", "texts", "token_ids"),
    [
        ("a", ["a"], []),
        (["a"], ["a"], []),
        ([1, 2], [], [[1, 2]]),
        ([[1, 2], [3]], [], [[1, 2], [3]]),
    ],
)
async def test_prompts_come_in_four_forms(
    gateway: Gateway,
    fake_router: FakeRouter,
    prompt: Any,
    texts: list[str],
    token_ids: list[list[int]],
) -> None:
    await post(gateway, COMPLETIONS, prompt=prompt)
    requests = [request for request in fake_router.requests if isinstance(request, GenerateRequest)]
    kinds = [request.WhichOneof("prompt") for request in requests]
    assert [r.text for r, kind in zip(requests, kinds, strict=True) if kind == "text"] == texts
    ids = [list(r.token_ids.ids) for r, k in zip(requests, kinds, strict=True) if k == "token_ids"]
    assert sorted(ids) == token_ids
    assert {request.options.stop.max_tokens for request in requests} == {16}


async def test_fields_that_cannot_matter_are_ignored(gateway: Gateway) -> None:
    ignored = {
        "store": True,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "safety_identifier": "x",
        "prompt_cache_key": "y",
        "verbosity": "low",
        "web_search_options": {},
        "parallel_tool_calls": True,
        "logprobs": False,
        "echo": False,
        "best_of": 1,
        "presence_penalty": 0.0,
        "response_format": {"type": "text"},
        "tools": [],
        "tool_choice": "none",
        "top_logprobs": 0,
        "nobody_knows_this": [{"at": "all"}],
    }
    await post(gateway, CHAT, messages=HELLO, **ignored)


async def test_a_plain_request_id_is_echoed_and_any_other_replaced(gateway: Gateway) -> None:
    for path, label in (("/health", "a-b.c"), ("/no/such/route", "x" * 128)):
        response = await gateway.http.get(path, headers={"x-request-id": label})
        assert response.headers["x-request-id"] == label
    for label in ("", "x" * 129, "a b", "é"):
        headers = {b"x-request-id": label.encode()}
        response = await gateway.http.get("/health", headers=headers)
        assert response.headers["x-request-id"].isalnum()
        assert len(response.headers["x-request-id"]) == 32
