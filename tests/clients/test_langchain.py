"""LangChain's models for OpenAI answer, stream, count tokens and tell log-probabilities."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from langchain_openai import ChatOpenAI, OpenAI

from tests.end_to_end.cluster import Cluster

pytestmark = pytest.mark.slow

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def options(cluster: Cluster) -> Iterator[dict[str, Any]]:
    """What both models take. LangChain would not close HTTP clients that it made."""
    with httpx2.Client() as http_client:
        yield {
            "model": cluster.model,
            "base_url": f"{cluster.base_url}/v1",
            "api_key": "none",
            "temperature": 0,
            "max_retries": 0,
            "http_client": http_client,
        }


@pytest.fixture(scope="module")
def chat(options: dict[str, Any]) -> ChatOpenAI:
    return ChatOpenAI(**options, max_completion_tokens=24, stream_usage=True)


def test_a_chat_streams_what_it_answers(chat: ChatOpenAI) -> None:
    whole = chat.invoke(QUESTION)
    assert whole.content == ANSWER
    pieces = list(chat.stream(QUESTION))
    assert "".join(str(piece.content) for piece in pieces) == ANSWER
    assert sum(bool(piece.content) for piece in pieces) > 2
    usages = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert len(usages) == 1 and whole.usage_metadata is not None
    assert usages[0]["output_tokens"] == whole.usage_metadata["output_tokens"] > 5


def test_a_conversation_with_roles_is_answered(chat: ChatOpenAI) -> None:
    turns = [("system", "You are a helpful AI assistant."), ("human", "Hi"), ("ai", "Hello!")]
    answer = chat.invoke([*turns, ("human", QUESTION)])
    assert "Paris" in str(answer.content)


def test_logprobs_are_in_the_metadata(chat: ChatOpenAI) -> None:
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke(QUESTION)
    tokens = answer.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens).startswith(ANSWER)
    assert {len(token["top_logprobs"]) for token in tokens} == {2}


async def test_a_chat_streams_on_an_event_loop(options: dict[str, Any]) -> None:
    async with httpx2.AsyncClient() as http_async_client:
        chat = ChatOpenAI(**options, http_async_client=http_async_client, max_completion_tokens=24)
        pieces = [piece async for piece in chat.astream(QUESTION)]
    assert "".join(str(piece.content) for piece in pieces) == ANSWER


def test_a_completion_streams_what_it_answers(options: dict[str, Any]) -> None:
    model = OpenAI(**options, max_tokens=8)
    text = model.invoke("One, two, three,")
    assert "four" in text
    assert "".join(model.stream("One, two, three,")) == text
