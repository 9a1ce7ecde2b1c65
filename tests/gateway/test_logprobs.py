"""Log-probabilities in answers and streams, in the shapes of OpenAI and vLLM."""

from typing import Any

import pytest

from octavo.gateway.logprobs import CompletionLogprobsWriter, chat_logprobs
from octavo.v1.inference_pb2 import TokenText
from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import (
    MODEL,
    PIECES,
    PROMPT_TOKEN_IDS,
    TEXT,
    FakeRouter,
    token_text,
)
from tests.gateway.sse import chunks

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]
HALF = "bytes:\\xe2\\x82"


async def post(gateway: Gateway, path: str, **body: Any) -> Any:
    response = await gateway.http.post(path, json={"model": MODEL} | body)
    assert response.status_code == 200, response.text
    return response.json() if not body.get("stream") else chunks(response.content)


def offsets(texts: tuple[str, ...]) -> list[int]:
    return [len("".join(texts[:i])) for i in range(len(texts))]


async def test_a_chat_has_each_token_with_its_bytes_and_the_best_ones(gateway: Gateway) -> None:
    answer = await post(gateway, CHAT, messages=HELLO, logprobs=True, top_logprobs=2)
    content = answer["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == list(PIECES)
    assert [bytes(entry["bytes"]).decode() for entry in content] == list(PIECES)
    assert {entry["logprob"] for entry in content} == {-1.5}
    assert content[0]["top_logprobs"] == [
        {"token": " best", "logprob": -1.0, "bytes": list(b" best")},
        {"token": "\ufffd", "logprob": -1.5, "bytes": [0xE2, 0x82]},
    ]


async def test_a_chat_without_top_logprobs_has_empty_lists(gateway: Gateway) -> None:
    answer = await post(gateway, CHAT, messages=HELLO, logprobs=True)
    content = answer["choices"][0]["logprobs"]["content"]
    assert [entry["top_logprobs"] for entry in content] == [[], [], []]


async def test_a_completion_has_parallel_lists(gateway: Gateway) -> None:
    answer = await post(gateway, COMPLETIONS, prompt="a", logprobs=2)
    assert answer["choices"][0]["logprobs"] == {
        "tokens": list(PIECES),
        "token_logprobs": [-1.5] * 3,
        "text_offset": offsets(PIECES),
        "top_logprobs": [{piece: -1.5, " best": -1.0, HALF: -1.5} for piece in PIECES],
    }
    answer = await post(gateway, COMPLETIONS, prompt="a", logprobs=0)
    wanted = [{piece: -1.5} for piece in PIECES]
    assert answer["choices"][0]["logprobs"]["top_logprobs"] == wanted


async def test_an_echoed_prompt_brings_its_own_and_the_first_token_has_none(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    answer = await post(gateway, COMPLETIONS, prompt="a", n=2, logprobs=1, echo=True)
    [request] = fake_router.requests
    assert request.options.echo
    assert request.options.prompt_logprobs == 1
    for choice in answer["choices"]:
        logprobs = choice["logprobs"]
        # The second and the third token are a character in two halves.
        echoed = ["Pro", "bytes:\\x6d\\xc3", "bytes:\\xb6", "pt"]
        assert logprobs["tokens"] == [*echoed, *PIECES]
        assert logprobs["token_logprobs"] == [None] + [-1.5] * 6
        assert logprobs["top_logprobs"][0] is None
        after_prompt = [len("Promöpt") + offset for offset in offsets(PIECES)]
        assert logprobs["text_offset"] == [0, 3, 4, 5, *after_prompt]
        assert "prompt_logprobs" not in choice


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": HELLO, "n": 2, "logprobs": True, "top_logprobs": 1}),
        (COMPLETIONS, {"prompt": "a", "n": 2, "logprobs": 1}),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2, "logprobs": 2, "echo": True}),
    ],
)
async def test_a_stream_adds_up_to_the_same(
    gateway: Gateway, path: str, body: dict[str, Any]
) -> None:
    whole = await post(gateway, path, **body)
    received = await post(gateway, path, **body, stream=True)
    for choice in whole["choices"]:
        parts = [
            part["logprobs"]
            for chunk in received
            for part in chunk["choices"]
            if part["index"] == choice["index"] and part["logprobs"]
        ]
        for name, values in choice["logprobs"].items():
            assert sum((part[name] or [] for part in parts), []) == (values or [])


async def test_a_prompts_come_where_vllm_puts_them(gateway: Gateway) -> None:
    entry = {
        "2": {"logprob": -1.5, "rank": 2, "decoded_token": "m\ufffd"},
        "100": {"logprob": -1.0, "rank": 1, "decoded_token": " best"},
    }
    chat = await post(gateway, CHAT, messages=HELLO, prompt_logprobs=1)
    assert chat["prompt_logprobs"][:2] == [None, entry]
    assert len(chat["prompt_logprobs"]) == len(PROMPT_TOKEN_IDS)
    completion = await post(gateway, COMPLETIONS, prompt=["a", "b"], prompt_logprobs=1)
    assert [c["prompt_logprobs"][1] for c in completion["choices"]] == [entry, entry]
    assert completion["choices"][0]["logprobs"] is None
    assert completion["choices"][0]["text"] == TEXT


def test_minus_infinity_is_a_number_that_json_has() -> None:
    token = token_text(1, [b"a"])
    token.logprobs.chosen.logprob = float("-inf")
    assert chat_logprobs([token]).content[0].logprob == -9999.0
    assert CompletionLogprobsWriter().write([token]).token_logprobs == [-9999.0]


def test_a_token_without_a_text_is_an_empty_one() -> None:
    assert CompletionLogprobsWriter().write([TokenText()]).tokens == [""]
