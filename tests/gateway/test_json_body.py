"""Bodies that are wrong: each gets a 400 with a sentence and the field."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octavo.errors import InvalidArgument
from octavo.gateway.json_body import decode_body
from octavo.gateway.not_offered import NOT_OFFERED, with_not_offered
from octavo.gateway.openai_types import ChatBody, CompletionBody
from octavo.gateway.router_requests import chat_requests, completion_requests

CHAT_DECODER = msgspec.json.Decoder(with_not_offered(ChatBody))
COMPLETION_DECODER = msgspec.json.Decoder(with_not_offered(CompletionBody))
HELLO = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def requests_of(is_chat: bool, content: bytes) -> Sequence[object]:
    """Go from a body to the router's requests, as the routes do."""
    if is_chat:
        return chat_requests(decode_body(CHAT_DECODER, content), "x")
    return completion_requests(decode_body(COMPLETION_DECODER, content), "x")


def refused(*, is_chat: bool, content: bytes) -> tuple[str, str]:
    """Return message and field of the error that the body is."""
    with pytest.raises(InvalidArgument) as refusal:
        requests_of(is_chat, content)
    return refusal.value.message, refusal.value.field


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The body is not valid JSON: Input data was truncated."),
        (b'{"model": "a", "messages": [', "The body is not valid JSON: Input data was truncated."),
        (b'{"model": a}', "The body is not valid JSON: invalid character (byte 10)."),
        (b'{"model": "\xff\xfe"}', "The body is not valid UTF-8: invalid start byte."),
        (b"[" * 200_000, "The body is wrong: expected object, got array."),
        (
            b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            "The body is not valid JSON: it is nested too deep.",
        ),
        (b"[]", "The body is wrong: expected object, got array."),
    ],
    ids=["empty", "cut", "bare word", "bad UTF-8", "deep cut", "deep", "array"],
)
def test_a_body_that_is_not_json(content: bytes, message: str) -> None:
    assert refused(is_chat=True, content=content) == (message, "")


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"model": 1}, "model", "model is wrong: expected string or null, got integer."),
        ({"messages": "Hello"}, "messages", "messages is wrong: expected array, got string."),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "messages[0].role is missing."),
        (
            {"messages": [{"role": 1, "content": "x"}]},
            "messages[0].role",
            "messages[0].role is wrong: expected string, got integer.",
        ),
        (
            {"messages": [{"role": "user"}]},
            "messages[0].content",
            "messages[0].content is missing; it holds the message's text.",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "messages[0].content[0] has type 'image_url', which is not offered yet;"
            " send parts of type 'text'.",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "messages[0].content[0].text is missing.",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
            "messages[0].tool_calls",
            "messages[0].tool_calls is not offered yet; leave it out.",
        ),
        (
            {"messages": [*HELLO, {"role": "tool", "content": "c", "tool_call_id": "1"}]},
            "messages[1].tool_call_id",
            "messages[1].tool_call_id is not offered yet; leave it out.",
        ),
        (
            {"truncate_prompt_tokens": -2},
            "truncate_prompt_tokens",
            "truncate_prompt_tokens is wrong: expected integer >= -1.",
        ),
        (
            {"temperature": "hot"},
            "temperature",
            "temperature is wrong: expected number or null, got string.",
        ),
        ({"temperature": 10**400}, "temperature", "temperature is wrong: number out of range."),
        ({"n": 0}, "n", "n is wrong: expected integer >= 1."),
        ({"n": 1.5}, "n", "n is wrong: expected integer or null, got number."),
        ({"seed": 2**63}, "seed", "seed is wrong: expected integer <= 9223372036854775807."),
        ({"top_k": -2}, "top_k", "top_k is wrong: expected integer >= -1."),
        ({"max_tokens": -1}, "max_tokens", "max_tokens is wrong: expected integer >= 1."),
        ({"max_tokens": 0}, "max_tokens", "max_tokens is wrong: expected integer >= 1."),
        (
            {"priority": 2**31},
            "priority",
            "priority is wrong: expected integer <= 2147483647.",
        ),
        ({"stop": [1]}, "stop[0]", "stop[0] is wrong: expected string, got integer."),
        (
            {"stop_token_ids": [-1]},
            "stop_token_ids[0]",
            "stop_token_ids[0] is wrong: expected integer >= 0.",
        ),
        (
            {"stream_options": {}},
            "stream_options",
            "stream_options is only for streams; set stream to true or leave it out.",
        ),
        (
            {"prompt_logprobs": 1, "stream": True},
            "prompt_logprobs",
            "prompt_logprobs is not for streams; set stream to false or leave it out.",
        ),
        ({"logprobs": 1}, "logprobs", "logprobs is wrong: expected boolean or null, got integer."),
        (
            {"top_logprobs": 1},
            "top_logprobs",
            "top_logprobs is only for answers with logprobs; set logprobs to true or leave it out.",
        ),
        (
            {"logprobs": True, "top_logprobs": 21},
            "top_logprobs",
            "top_logprobs is 21; it must be at most 20.",
        ),
        ({"echo": True}, "echo", "echo is not offered for chats yet; leave it out."),
        (
            {"allowed_token_ids": []},
            "allowed_token_ids",
            "allowed_token_ids is empty, so no token could be drawn; leave it out to allow all.",
        ),
        (
            {"logit_bias": {"x": 1}},
            "logit_bias",
            "logit_bias is wrong: expected integer, got string.",
        ),
        (
            {"logit_bias": {"-1": 1}},
            "logit_bias",
            "logit_bias is wrong: expected integer >= 0.",
        ),
        (
            {"logit_bias": {"1": "x"}},
            "logit_bias",
            "logit_bias is wrong: expected number, got string.",
        ),
        (
            {"tool_choice": "required", "tools": [TOOL]},
            "tool_choice",
            "tool_choice asks for a tool call, but parsing tool calls is not offered yet;"
            " leave it out, or send 'none' or 'auto'.",
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "add"}}, "tools": [TOOL]},
            "tool_choice",
            "tool_choice asks for a tool call, but parsing tool calls is not offered yet;"
            " leave it out, or send 'none' or 'auto'.",
        ),
        (
            {"tool_choice": "any", "tools": [TOOL]},
            "tool_choice",
            "tool_choice is 'any'; it must be 'none' or 'auto'.",
        ),
        (
            {"tools": [{"type": "retrieval"}]},
            "tools[0]",
            "tools[0] must have type 'function' and a function.",
        ),
        (
            {"tools": [TOOL, {"type": "function", "function": {}}]},
            "tools[1].function.name",
            "tools[1].function.name is missing; it says what the tool is called.",
        ),
    ],
)
def test_a_wrong_field_of_a_chat_is_named(fields: dict[str, Any], param: str, message: str) -> None:
    content = json.dumps({"model": "a", "messages": HELLO} | fields).encode()
    assert refused(is_chat=True, content=content) == (message, param)


def test_an_integer_too_long_for_python_is_out_of_range() -> None:
    content = b'{"model": "a", "prompt": "b", "seed": 1' + b"0" * 5000 + b"}"
    wanted = ("seed is wrong: integer value out of range.", "seed")
    assert refused(is_chat=False, content=content) == wanted


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "prompt", "prompt is missing."),
        ({"prompt": []}, "prompt", "prompt is empty; send at least one prompt."),
        ({"prompt": ["a", 1]}, "prompt", "prompt mixes texts and token ids"),
        ({"prompt": [1, [2]]}, "prompt", "prompt mixes texts and token ids"),
        ({"prompt": [1, -2]}, "prompt[1]", "prompt[1] is wrong: expected integer >= 0."),
        ({"prompt": [[1], [2**32]]}, "prompt[1][0]", "expected integer <= 4294967295."),
        ({"prompt": ["a"] * 33}, "prompt", "prompt has 33 prompts, at most 32"),
        ({"prompt": ["a"] * 32, "n": 3}, "n", "32 prompts with n = 3 are more than 64 outputs"),
        ({"prompt": ["a"] * 2, "n": 2**32 - 1}, "n", "are more than 64 outputs"),
        ({"prompt": "a", "logprobs": -1}, "logprobs", "logprobs is wrong: expected integer >= 0."),
        ({"prompt": "a", "logprobs": True}, "logprobs", "expected integer or null, got boolean."),
        ({"prompt": "a", "echo": True, "logprobs": 6}, "logprobs", "it must be at most 5."),
        ({"prompt": "a", "suffix": "b"}, "suffix", "suffix is not offered yet; leave it out."),
    ],
)
def test_a_wrong_field_of_a_completion_is_named(
    fields: dict[str, Any], param: str, words: str
) -> None:
    content = json.dumps({"model": "a"} | fields).encode()
    message, field = refused(is_chat=False, content=content)
    assert field == param
    assert words in message


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_a_field_that_is_not_offered_is_never_dropped_in_silence(name: str) -> None:
    assert name not in ChatBody.__struct_fields__ + CompletionBody.__struct_fields__
    body = {"model": "a", "messages": HELLO}
    content = json.dumps(body | {name: ["something", {"that": "matters"}]}).encode()
    wanted = (f"{name} is not offered yet; leave it out.", name)
    assert refused(is_chat=True, content=content) == wanted
    for neutral in (None, *NOT_OFFERED[name]):
        assert requests_of(True, json.dumps(body | {name: neutral}).encode())


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    (*ChatBody.__struct_fields__, *CompletionBody.__struct_fields__, *NOT_OFFERED, "unknown")
)
likely = st.fixed_dictionaries(
    {"model": st.just("a") | values, "messages": st.just(HELLO) | values},
    optional={"prompt": st.just("a") | values, "n": st.integers(-1, 9), "stream": st.booleans()},
)
bodies = st.builds(
    lambda base, changes: json.dumps(base | changes, allow_nan=False).encode(),
    likely,
    st.dictionaries(names, values, max_size=4),
) | st.binary(max_size=40)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=bodies, is_chat=st.booleans())
def test_any_body_becomes_requests_or_a_sentence(content: bytes, is_chat: bool) -> None:
    try:
        requests = requests_of(is_chat, content)
    except InvalidArgument as error:
        assert error.message.endswith(".")
    else:
        assert requests
