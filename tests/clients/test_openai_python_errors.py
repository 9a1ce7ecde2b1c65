"""OpenAI's Python client when a call fails: its own error classes, and nothing that goes on."""

from collections.abc import Callable, Iterator

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.end_to_end.cluster import Cluster

pytestmark = pytest.mark.slow

MODEL = "demo"
HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture
def guarded(guarded_cluster: Cluster) -> Iterator[openai.OpenAI]:
    """A client with the key of a server that runs one request, lets one wait, and is idle."""
    guarded_cluster.wait_until_idle()
    url = f"{guarded_cluster.base_url}/v1"
    with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_value_is_a_bad_request(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature is 7") as refusal:
        client.chat.completions.create(model=MODEL, messages=HELLO, temperature=7, stream=stream)
    error = refusal.value
    assert (error.status_code, error.param) == (400, "temperature")
    assert error.type == "invalid_request_error"
    assert error.request_id


class City(pydantic.BaseModel):
    name: str


@pytest.mark.parametrize(
    ("call", "param"),
    [
        (
            lambda client: client.chat.completions.parse(
                model=MODEL, messages=HELLO, response_format=City
            ),
            "response_format",
        ),
        (
            lambda client: client.chat.completions.create(
                model=MODEL, messages=HELLO, tools=[TOOL], tool_choice="required"
            ),
            "tool_choice",
        ),
        (
            lambda client: client.completions.create(model=MODEL, prompt="Hello", suffix="!"),
            "suffix",
        ),
    ],
)
def test_what_is_not_offered_is_a_bad_request_that_says_so(
    client: openai.OpenAI, call: Callable[[openai.OpenAI], object], param: str
) -> None:
    with pytest.raises(openai.BadRequestError, match="not offered yet") as refusal:
        call(client)
    assert refusal.value.param == param


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.models.retrieve("gpt-9"),
        lambda client: client.completions.create(model="gpt-9", prompt="Hello"),
        lambda client: client.chat.completions.create(model="gpt-9", messages=HELLO),
    ],
)
def test_another_model_is_not_found(
    client: openai.OpenAI, call: Callable[[openai.OpenAI], object]
) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-9") as refusal:
        call(client)
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


def test_another_key_is_an_authentication_error(guarded: openai.OpenAI) -> None:
    assert guarded.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.AuthenticationError, match="key") as refusal:
        guarded.with_options(api_key="wrong").models.list()
    assert refusal.value.code == "invalid_api_key"


def endless(client: openai.OpenAI) -> "openai.Stream[openai.types.Completion]":
    """Start an output that outlasts the test, unless it is closed; returns when it is accepted."""
    return client.completions.create(
        model=MODEL, prompt="Hello", max_tokens=90_000, stream=True, extra_body={"ignore_eos": True}
    )


def test_a_full_queue_is_a_rate_limit_error_that_says_when_to_come_again(
    guarded: openai.OpenAI,
) -> None:
    with endless(guarded) as running:
        assert next(running).choices
        with endless(guarded), pytest.raises(openai.RateLimitError) as refusal:
            endless(guarded)
    assert refusal.value.code == "rate_limit_exceeded"
    assert int(refusal.value.response.headers["retry-after"]) >= 1


def num_aborted(cluster: Cluster) -> float:
    cluster.wait_until_idle()
    name = "octavo_scheduler_finished_outputs_total"
    return cluster.metrics().get((name, frozenset({("reason", "abort")})), 0)


def test_a_call_that_times_out_is_aborted(guarded: openai.OpenAI, guarded_cluster: Cluster) -> None:
    before = num_aborted(guarded_cluster)
    with pytest.raises(openai.APITimeoutError):
        guarded.with_options(timeout=0.2).completions.create(
            model=MODEL, prompt="Hello", max_tokens=90_000, extra_body={"ignore_eos": True}
        )
    assert num_aborted(guarded_cluster) == before + 1


async def test_an_asynchronous_stream_that_is_closed_early_is_aborted(
    guarded_cluster: Cluster,
) -> None:
    before = num_aborted(guarded_cluster)
    async with openai.AsyncOpenAI(
        base_url=f"{guarded_cluster.base_url}/v1", api_key="secret", max_retries=0
    ) as client:
        stream = await client.completions.create(
            model=MODEL,
            prompt="Hello",
            max_tokens=90_000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            assert chunk.choices[0].text
            break
        await stream.close()
    assert num_aborted(guarded_cluster) == before + 1
