"""Checks what clients want to be answered: texts, token ids and conversations."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from octavo.v1 import inference_pb2, scheduling_pb2, tokenizer_pb2

from .checks import check, check_count, check_token_ids

# What OpenAI calls those who say what a tool answered, now and before.
_ROLES_OF_TOOLS = ("tool", "function")

MAX_TOOLS = 128
MAX_TOOLS_BYTES = 256 * 1024
"""All of them together, as JSON."""
MAX_TOOLS_DEPTH = 64

# No tokenizer needs more for what fits a context, by far; and more would only cost time.
_MAX_PROMPT_BYTES_PER_TOKEN = 16
_MAX_PROMPT_BYTES = 4 * 1024 * 1024

_EMPTY_PROMPT = "the prompt is empty; send some text or some token ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidConversation:
    """A conversation as chat templates take it."""

    messages: list[dict[str, str]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


def validate_chat(
    request: inference_pb2.ChatRequest, model: scheduling_pb2.ModelInfo
) -> ValidConversation:
    """Return the conversation to be answered; raises InvalidArgument."""
    check(
        not request.options.echo,
        "echo",
        "echo repeats prompts, and a conversation is none; leave it out",
    )
    return validate_conversation(request, model)


def validate_conversation(
    request: inference_pb2.ChatRequest | tokenizer_pb2.Conversation,
    model: scheduling_pb2.ModelInfo,
) -> ValidConversation:
    """Return the conversation; raises InvalidArgument."""
    messages = validate_messages(request.messages, model)
    goes_on = request.continue_final_message
    check(
        not (goes_on and request.add_generation_prompt),
        "continue_final_message",
        "continue_final_message and add_generation_prompt exclude each other; send one of them",
    )
    check(
        not goes_on or messages[-1]["content"].strip() != "",
        "continue_final_message",
        "continue_final_message needs some text in the last message to go on from",
    )
    return ValidConversation(
        messages=messages,
        tools=_valid_tools(request.tools_json),
        add_generation_prompt=(
            request.add_generation_prompt
            if request.HasField("add_generation_prompt")
            else not goes_on
        ),
        continue_final_message=goes_on,
    )


def validate_messages(
    messages: Sequence[inference_pb2.ChatMessage], model: scheduling_pb2.ModelInfo
) -> list[dict[str, str]]:
    """Return the messages as chat templates take them; raises InvalidArgument."""
    check(len(messages) > 0, "messages", "messages is empty; send at least one message")
    for index, message in enumerate(messages):
        check(
            message.role != "",
            "messages",
            f"messages[{index}] has no role; say who speaks: system, user or assistant",
        )
        field = f"messages[{index}].role"
        check(
            message.role not in _ROLES_OF_TOOLS,
            field,
            f"{field} is {message.role!r}, but calling tools is not offered yet; send what the tool"
            " said as the user's message",
        )
    num_bytes = sum(len(message.content.encode()) for message in messages)
    num_bytes += sum(len(message.name.encode()) for message in messages)
    check_text_bytes(num_bytes, "messages", model)
    return [_for_template(message) for message in messages]


def _for_template(message: inference_pb2.ChatMessage) -> dict[str, str]:
    found = {"role": message.role, "content": message.content}
    # Templates ask whether there is one.
    return found | {"name": message.name} if message.name else found


def validate_prompt_text(text: str, model: scheduling_pb2.ModelInfo) -> str:
    check(text != "", "prompt", _EMPTY_PROMPT)
    check_text_bytes(len(text.encode()), "prompt", model)
    return text


def validate_prompt_token_ids(
    token_ids: Sequence[int], model: scheduling_pb2.ModelInfo
) -> list[int]:
    check(len(token_ids) > 0, "prompt", _EMPTY_PROMPT)
    check_token_ids(token_ids, "prompt", model.vocab_size)
    return list(token_ids)


def check_text_bytes(num_bytes: int, field: str, model: scheduling_pb2.ModelInfo) -> None:
    """Raise InvalidArgument for text that is not worth tokenizing: it cannot fit the context."""
    limit = max_prompt_bytes(model)
    check(
        num_bytes <= limit,
        field,
        f"{field} has {num_bytes} bytes of text; at most {limit} are taken for a context of"
        f" {model.max_model_len} tokens",
    )


def check_fits_context(num_prompt_tokens: int, field: str, model: scheduling_pb2.ModelInfo) -> None:
    """Raise InvalidArgument unless the prompt leaves room for a token of output."""
    check(num_prompt_tokens > 0, field, _EMPTY_PROMPT)
    check(
        num_prompt_tokens < model.max_model_len,
        field,
        f"prompt has {num_prompt_tokens} tokens, the context holds {model.max_model_len} including"
        " the output; send a shorter prompt",
    )


def max_prompt_bytes(model: scheduling_pb2.ModelInfo) -> int:
    return min(_MAX_PROMPT_BYTES, _MAX_PROMPT_BYTES_PER_TOKEN * model.max_model_len)


def _valid_tools(tools_json: str) -> list[dict[str, Any]] | None:
    if not tools_json:
        return None
    num_bytes = len(tools_json.encode())
    check(
        num_bytes <= MAX_TOOLS_BYTES,
        "tools",
        f"tools has {num_bytes} bytes; at most {MAX_TOOLS_BYTES} are taken",
    )
    try:
        tools = json.loads(tools_json)
    except (ValueError, RecursionError):
        tools = None
    check(
        isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools),
        "tools",
        "tools is no JSON array of objects; send one object for each tool",
    )
    check(
        _depth_is_at_most(MAX_TOOLS_DEPTH, tools),
        "tools",
        f"tools is nested deeper than {MAX_TOOLS_DEPTH} levels; send flatter ones",
    )
    check(len(tools) > 0, "tools", "tools is empty; leave it out")
    check_count(len(tools), MAX_TOOLS, "tools", "tools")
    return list(tools)


def _depth_is_at_most(most: int, outermost: list[Any] | dict[str, Any]) -> bool:
    """Return whether arrays and objects, the outermost included, are nested so deep at most."""
    level = [outermost]
    for _ in range(most):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return True
    return False


def _inner(outer: list[Any] | dict[str, Any]) -> list[list[Any] | dict[str, Any]]:
    """Return the arrays and objects that one holds."""
    items = outer.values() if isinstance(outer, dict) else outer
    return [item for item in items if isinstance(item, list | dict)]
