"""OpenAI's own client, as far as the gateway alone decides what it sees."""

import openai
import pytest

from tests.gateway.conftest import Gateway
from tests.gateway.fake_router import MODEL, TEXT, TOKEN_IDS, FakeRouter


async def test_the_openai_client_chats_completes_and_lists(gateway: Gateway) -> None:
    chat = await gateway.openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], temperature=0, seed=1
    )
    assert chat.choices[0].message.content == TEXT
    assert chat.choices[0].finish_reason == "stop"
    assert chat.usage and chat.usage.total_tokens == 7
    completion = await gateway.openai.completions.create(model=MODEL, prompt=["a", "b"])
    assert [choice.text for choice in completion.choices] == [TEXT, TEXT]
    assert [model.id async for model in gateway.openai.models.list()] == [MODEL]


async def test_the_openai_client_streams(gateway: Gateway) -> None:
    stream = await gateway.openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    received = [chunk async for chunk in stream]
    texts = [c.choices[0].delta.content or "" for c in received if c.choices]
    assert "".join(texts) == TEXT
    assert received[-1].usage and received[-1].usage.completion_tokens == len(TOKEN_IDS)


async def test_the_openai_client_sees_an_unknown_model(
    gateway: Gateway, fake_router: FakeRouter
) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        await gateway.openai.models.retrieve("gpt-9")
