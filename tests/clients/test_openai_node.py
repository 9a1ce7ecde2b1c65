"""OpenAI's Node client: answers of every kind, and its own error classes."""

from typing import Any

import pytest

from tests.clients.node import needs_node, run_node
from tests.end_to_end.cluster import Cluster

pytestmark = [pytest.mark.slow, needs_node]

ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def seen(node_modules: None, cluster: Cluster, guarded_cluster: Cluster) -> dict[str, Any]:
    """What the client saw of both servers."""
    urls = [f"{each.base_url}/v1" for each in (cluster, guarded_cluster)]
    return run_node("openai_client.js", *urls, "secret")


@pytest.fixture
def answers(seen: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = seen["answers"]
    return found


def test_chats_with_several_choices_and_their_logprobs(answers: dict[str, Any]) -> None:
    chat = answers["chat"]
    assert [choice["index"] for choice in chat["choices"]] == [0, 1]
    for choice in chat["choices"]:
        assert choice["message"] == {"role": "assistant", "content": ANSWER, "refusal": None}
        assert choice["finish_reason"] == "stop"
        tokens = choice["logprobs"]["content"]
        assert bytes(sum((token["bytes"] for token in tokens), [])).startswith(ANSWER.encode())
        for token in tokens:
            # Greedy: the token is the best of those that were asked for.
            assert token["top_logprobs"][0]["token"] == token["token"]
            assert len(token["top_logprobs"]) == 2
    assert chat["usage"]["completion_tokens"] == 2 * len(tokens)


def test_chats_as_a_stream(answers: dict[str, Any]) -> None:
    texts, ends = ["", ""], {}
    for chunk in answers["chatStream"]:
        assert chunk["id"] == answers["chatStream"][0]["id"]
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            ends[choice["index"]] = choice["finish_reason"]
    assert (texts, ends) == ([ANSWER] * 2, {0: "stop", 1: "stop"})


def test_its_stream_helper_puts_the_answer_together(answers: dict[str, Any]) -> None:
    helper = answers["chatHelper"]
    assert "".join(helper["deltas"]) == ANSWER
    assert len(helper["deltas"]) > 2
    assert helper["answer"]["choices"][0]["message"]["content"] == ANSWER
    assert helper["answer"]["usage"]["completion_tokens"] > 2


def test_a_stop_string_ends_the_answer(answers: dict[str, Any]) -> None:
    (choice,) = answers["stopped"]["choices"]
    assert choice["message"]["content"] == ANSWER[: ANSWER.index(" Paris")]
    assert choice["finish_reason"] == "stop"


def test_completes_in_one_piece_and_as_a_stream(answers: dict[str, Any]) -> None:
    (choice,) = answers["completion"]["choices"]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["finish_reason"] == "length"
    assert answers["completion"]["usage"]["completion_tokens"] == 8
    pieces = [chunk["choices"][0] for chunk in answers["completionStream"]]
    assert "".join(piece["text"] for piece in pieces) == choice["text"]
    assert pieces[-1]["finish_reason"] == "length"


def test_finds_the_model(answers: dict[str, Any]) -> None:
    assert answers["model"]["id"] == "demo"
    assert answers["models"] == [answers["model"]]


@pytest.mark.parametrize(
    ("call", "name", "status", "param"),
    [
        ("badRequest", "BadRequestError", 400, "temperature"),
        ("badRequestStream", "BadRequestError", 400, "temperature"),
        ("notFound", "NotFoundError", 404, "model"),
        ("noModel", "NotFoundError", 404, "model"),
        ("authentication", "AuthenticationError", 401, None),
        ("rateLimit", "RateLimitError", 429, None),
    ],
)
def test_refusals_are_errors_of_its_own(
    seen: dict[str, Any], call: str, name: str, status: int, param: str | None
) -> None:
    refusal = seen["refusals"][call]
    assert (refusal["name"], refusal["status"], refusal["param"]) == (name, status, param)
    assert (refusal["retryAfter"] is not None) == (name == "RateLimitError")
