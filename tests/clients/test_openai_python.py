"""OpenAI's Python client, which checks every answer against its own types."""

import math
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.end_to_end.cluster import Cluster

pytestmark = pytest.mark.slow

MODEL = "demo"
QUESTION: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
ANSWER = "The capital of France is Paris."
PROMPT = "One, two, three,"
# bfloat16 rounds in another order where a prefix comes from the cache.
LOGPROB_TOLERANCE = 0.1


@pytest.fixture(scope="module")
def lenient(cluster: Cluster) -> Iterator[openai.OpenAI]:
    """For completions: OpenAI's own have nulls where the client's types have none."""
    with openai.OpenAI(base_url=f"{cluster.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_completion_tokens=24
    )
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", ANSWER)
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage is not None and usage.prompt_tokens > 10 and usage.completion_tokens > 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_fields_that_cannot_matter_are_taken(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "developer", "content": "Be short."}, *QUESTION],
        max_tokens=1,
        metadata={"purpose": "test"},
        parallel_tool_calls=False,
        prompt_cache_key="key",
        reasoning_effort="low",
        safety_identifier="somebody",
        service_tier="auto",
        store=False,
        user="somebody",
        verbosity="low",
    )
    assert answer.choices[0].finish_reason == "length"


def test_a_chat_streams_and_ends_with_its_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            temperature=0,
            max_completion_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    *pieces, last = chunks
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == ANSWER
    assert [piece.choices[0].finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + [
        "stop"
    ]
    assert all(piece.usage is None for piece in pieces)
    assert last.choices == [] and last.usage is not None and last.usage.completion_tokens > 5


def test_its_stream_helper_puts_the_answer_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_completion_tokens=24,
        logprobs=True,
        stream_options={"include_usage": True},
    ) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert "".join(deltas) == ANSWER and len(deltas) > 2
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (ANSWER, "stop")
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert answer.usage is not None
    assert len(choice.logprobs.content) == answer.usage.completion_tokens


def test_two_outputs_are_two_choices_streamed_or_not(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=12, n=2
    )
    assert [(choice.index, choice.message.content) for choice in whole.choices] == [
        (0, ANSWER),
        (1, ANSWER),
    ]
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=12, n=2, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: ANSWER, 1: ANSWER}
    drawn = client.completions.create(
        model=MODEL, prompt=PROMPT, temperature=1.5, seed=7, max_tokens=16, n=2
    )
    assert drawn.choices[0].text != drawn.choices[1].text


@pytest.mark.parametrize("stop", [" Paris", [" Paris", "Berlin"]])
def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(
    client: openai.OpenAI, stop: str | list[str]
) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, stop=stop
    )
    (choice,) = answer.choices
    assert choice.message.content == ANSWER[: ANSWER.index(" Paris")]
    assert choice.finish_reason == "stop"


def test_completions_answer_every_prompt_and_stream_the_same(
    client: openai.OpenAI, lenient: openai.OpenAI
) -> None:
    prompts = [PROMPT, "The capital of France is"]
    whole = client.completions.create(model=MODEL, prompt=prompts, temperature=0, max_tokens=6)
    assert whole.id.startswith("cmpl-") and whole.object == "text_completion"
    assert "four" in whole.choices[0].text and "Paris" in whole.choices[1].text
    assert [choice.finish_reason for choice in whole.choices] == ["length"] * 2
    assert whole.usage is not None and whole.usage.completion_tokens == 12
    texts = ["", ""]
    # The finish reason of an output that goes on is null.
    for chunk in lenient.completions.create(
        model=MODEL, prompt=prompts, temperature=0, max_tokens=6, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


def test_chat_completion_and_echoed_prompt_agree_on_logprobs(
    client: openai.OpenAI, lenient: openai.OpenAI
) -> None:
    chat = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_tokens=8,
        logprobs=True,
        top_logprobs=3,
        extra_body={"return_token_ids": True},
    )
    assert chat.choices[0].logprobs is not None
    tokens = chat.choices[0].logprobs.content
    assert tokens is not None and len(tokens) == 8
    for token in tokens:
        best = [candidate.logprob for candidate in token.top_logprobs]
        assert best == sorted(best, reverse=True) and len(best) == 3
        assert token.logprob == best[0]
        assert sum(map(math.exp, best)) <= 1 + 1e-6
        assert bytes(token.bytes or []).decode() == token.token

    prompt_ids = (chat.model_extra or {})["prompt_token_ids"]
    output_ids = (chat.choices[0].model_extra or {})["token_ids"]
    completion = client.completions.create(
        model=MODEL, prompt=prompt_ids, temperature=0, max_tokens=8, logprobs=3
    )
    drawn = completion.choices[0].logprobs
    assert drawn is not None and drawn.tokens == [token.token for token in tokens]
    logprobs = [token.logprob for token in tokens]
    assert drawn.token_logprobs == pytest.approx(logprobs, abs=LOGPROB_TOLERANCE)

    # The first token of a prompt, which nothing comes before, has null.
    echo = lenient.completions.create(
        model=MODEL, prompt=[prompt_ids + output_ids], max_tokens=1, logprobs=0, echo=True
    )
    echoed = echo.choices[0].logprobs
    assert echoed is not None and echoed.token_logprobs is not None and echoed.tokens is not None
    assert echoed.token_logprobs[0] is None
    read = slice(len(prompt_ids), len(prompt_ids) + 8)
    assert echoed.tokens[read] == drawn.tokens
    assert echoed.token_logprobs[read] == pytest.approx(logprobs, abs=LOGPROB_TOLERANCE)


def test_text_offsets_point_into_the_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=PROMPT, temperature=0, max_tokens=8, logprobs=1
    )
    text, logprobs = answer.choices[0].text, answer.choices[0].logprobs
    assert logprobs is not None and logprobs.tokens and logprobs.text_offset
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert text[offset : offset + len(token)] == token


def test_the_model_is_found(client: openai.OpenAI) -> None:
    model = client.models.retrieve(MODEL)
    assert (model.id, model.object) == (MODEL, "model")
    assert client.models.list().data == [model]


def test_raw_responses_carry_the_id_of_the_request(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=QUESTION, max_tokens=1, extra_headers={"x-request-id": "my-label"}
    )
    answer = raw.parse()
    assert raw.headers["x-request-id"] == answer._request_id == "my-label"
    assert raw.headers["content-type"] == "application/json"
