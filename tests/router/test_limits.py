"""How much of everything a request may hold: just below the limit, at it, and just above it."""

import json
from collections.abc import Callable

import pytest

from octavo.errors import InvalidArgument
from octavo.router.prompt_validation import (
    check_fits_context,
    validate_chat,
    validate_messages,
    validate_prompt_text,
)
from octavo.router.validation import validate_options
from octavo.v1.inference_pb2 import ChatMessage, ChatRequest, GenerationOptions
from octavo.v1.scheduling_pb2 import ModelInfo

MODEL = ModelInfo(max_model_len=100, vocab_size=50)
LONG_MODEL = ModelInfo(max_model_len=10_000_000)
USER = ChatMessage(role="user", content="hi")
MEBIBYTE = 2**20


def chat_with(tools: object) -> None:
    validate_chat(ChatRequest(messages=[USER], tools_json=json.dumps(tools)), MODEL)


def nested(depth: int) -> object:
    """Return arrays in one another, one tool around them."""
    value: object = {}
    for _ in range(depth - 3):
        value = [value]
    return [{"x": value}]


def text_of(num_bytes: int) -> ChatMessage:
    return ChatMessage(role="user", content="x" * num_bytes)


def bias(options: GenerationOptions, count: int) -> None:
    options.sampling.logit_bias_token_ids.extend([1] * count)
    options.sampling.logit_bias_values.extend([1] * count)


@pytest.mark.parametrize(
    ("limit", "change", "field"),
    [
        (16, lambda o, k: setattr(o, "n", k), "n"),
        (16, lambda o, k: o.stop.stop.extend(["x"] * k), "stop"),
        (256, lambda o, k: o.stop.stop.append("x" * k), "stop"),
        (256, lambda o, k: o.stop.stop_token_ids.extend([1] * k), "stop_token_ids"),
        (100, lambda o, k: setattr(o.stop, "min_tokens", k), "min_tokens"),
        (128, lambda o, k: setattr(o, "request_id", "x" * k), "request_id"),
        (20, lambda o, k: setattr(o, "logprobs", k), "logprobs"),
        (5, lambda o, k: setattr(o, "prompt_logprobs", k), "prompt_logprobs"),
        (300, bias, "logit_bias"),
        (1024, lambda o, k: o.sampling.allowed_token_ids.extend([1] * k), "allowed_token_ids"),
        (49, lambda o, k: o.sampling.allowed_token_ids.append(k), "allowed_token_ids"),
        (32, lambda o, k: o.bad_words.extend(["x"] * k), "bad_words"),
        (64, lambda o, k: o.bad_words.append("x" * k), "bad_words"),
        (64, lambda o, k: setattr(o, "cache_salt", "x" * k), "cache_salt"),
    ],
)
def test_an_option_has_its_limit(
    limit: int, change: Callable[[GenerationOptions, int], object], field: str
) -> None:
    for count in (limit - 1, limit, limit + 1):
        options = GenerationOptions()
        change(options, count)
        if count <= limit:
            validate_options(options, MODEL)
            continue
        with pytest.raises(InvalidArgument, match=field) as refusal:
            validate_options(options, MODEL)
        assert refusal.value.field == field


@pytest.mark.parametrize(
    ("limit", "check", "field"),
    [
        (16 * 100, lambda k: validate_prompt_text("x" * k, MODEL), "prompt"),
        (4 * MEBIBYTE, lambda k: validate_prompt_text("x" * k, LONG_MODEL), "prompt"),
        (16 * 100, lambda k: validate_messages([text_of(5), text_of(k - 5)], MODEL), "messages"),
        (99, lambda k: check_fits_context(k, "prompt", MODEL), "prompt"),
        (128, lambda k: chat_with([{}] * k), "tools"),
        (262_144, lambda k: chat_with([{"x": "y" * (k - len('[{"x": ""}]'))}]), "tools"),
        (64, lambda k: chat_with(nested(k)), "tools"),
    ],
)
def test_a_prompt_has_its_limit(limit: int, check: Callable[[int], object], field: str) -> None:
    check(limit - 1)
    check(limit)
    with pytest.raises(InvalidArgument, match=field) as refusal:
        check(limit + 1)
    assert refusal.value.field == field
