"""Every prompt a client can get wrong, and what it is told."""

from collections.abc import Callable

import pytest

from octavo.errors import InvalidArgument
from octavo.router.prompt_validation import (
    check_fits_context,
    validate_chat,
    validate_messages,
    validate_prompt_text,
    validate_prompt_token_ids,
)
from octavo.v1.inference_pb2 import ChatMessage, ChatRequest
from octavo.v1.scheduling_pb2 import ModelInfo

MODEL = ModelInfo(max_model_len=100, vocab_size=50)
USER = ChatMessage(role="user", content="hi")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty; send at least one message"),
        (
            [ChatMessage(role="user", content="a"), ChatMessage(content="b")],
            "messages[1] has no role",
        ),
        (
            [ChatMessage(role="user", content="é" * 400)] * 2 + [ChatMessage(role="user")],
            None,
        ),
        (
            [ChatMessage(role="user", content="é" * 400)] * 2
            + [ChatMessage(role="user", content="x")],
            "messages has 1601 bytes of text; at most 1600 are taken for a context of 100 tokens",
        ),
    ],
)
def test_messages(messages: list[ChatMessage], message: str | None) -> None:
    if message is None:
        assert len(validate_messages(messages, MODEL)) == len(messages)
        return
    with pytest.raises(InvalidArgument) as error:
        validate_messages(messages, MODEL)
    assert error.value.field == "messages"
    assert message in error.value.message


@pytest.mark.parametrize("role", ["tool", "function"])
def test_what_a_tool_answered_is_refused(role: str) -> None:
    with pytest.raises(InvalidArgument, match=f"is '{role}', but calling tools is not") as error:
        validate_messages([USER, ChatMessage(role=role, content="7")], MODEL)
    assert error.value.field == "messages[1].role"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: validate_prompt_text("", MODEL), "the prompt is empty"),
        (lambda: validate_prompt_text("x" * 1601, MODEL), "prompt has 1601 bytes of text; at most"),
        (lambda: validate_prompt_token_ids([], MODEL), "the prompt is empty"),
        (lambda: validate_prompt_token_ids([1, 50], MODEL), "the token id 50; the model's ids are"),
        (lambda: check_fits_context(0, "prompt", MODEL), "the prompt is empty"),
        (
            lambda: check_fits_context(9000, "prompt", MODEL),
            "prompt has 9000 tokens, the context holds 100 including the output",
        ),
        (lambda: check_fits_context(100, "prompt", MODEL), "prompt has 100 tokens"),
    ],
)
def test_a_wrong_prompt_is_named(check: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        check()
    assert error.value.field == "prompt"
    assert message in error.value.message


def test_prompts_up_to_the_limits_are_good() -> None:
    assert validate_prompt_text("x" * 1600, MODEL)
    assert validate_prompt_token_ids([49], MODEL) == [49]
    check_fits_context(99, "prompt", MODEL)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ChatRequest(add_generation_prompt=True), "continue_final_message"),
        (ChatRequest(messages=[ChatMessage(role="a")]), "continue_final_message"),
    ],
)
def test_what_cannot_be_gone_on_from_is_refused(request_: ChatRequest, field: str) -> None:
    wrong = ChatRequest(messages=[USER], continue_final_message=True)
    wrong.MergeFrom(request_)
    with pytest.raises(InvalidArgument) as error:
        validate_chat(wrong, MODEL)
    assert error.value.field == field


@pytest.mark.parametrize("tools", ["[]", "{}", "[1]", "[", f"[{'{},' * 128}{{}}]", " " * 262_145])
def test_wrong_tools_are_refused(tools: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        validate_chat(ChatRequest(messages=[USER], tools_json=tools), MODEL)
    assert error.value.field == "tools"


def test_a_template_sees_names_where_there_are_some() -> None:
    ada = ChatMessage(role="user", content="hi", name="Ada")
    assert validate_messages([ada, USER], MODEL) == [
        {"role": "user", "content": "hi", "name": "Ada"},
        {"role": "user", "content": "hi"},
    ]
    with pytest.raises(InvalidArgument, match="messages has 1603 bytes"):
        validate_messages([ada, ChatMessage(role="user", name="x" * 1598)], MODEL)


def test_a_conversation_is_answered_unless_it_is_to_go_on() -> None:
    assert validate_chat(ChatRequest(messages=[USER]), MODEL).add_generation_prompt
    goes_on = validate_chat(ChatRequest(messages=[USER], continue_final_message=True), MODEL)
    assert not goes_on.add_generation_prompt
