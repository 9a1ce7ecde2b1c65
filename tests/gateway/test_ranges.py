"""The ranges that openapi.json tells are those that gateway and router check, to the last value."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from octavo.errors import InvalidArgument
from octavo.gateway.json_body import decode_body
from octavo.gateway.not_offered import with_not_offered
from octavo.gateway.openai_types import ChatBody, CompletionBody
from octavo.gateway.ranges import RANGES
from octavo.gateway.router_requests import chat_requests, completion_requests
from octavo.router.prompt_validation import validate_chat
from octavo.router.validation import validate_options
from octavo.v1.scheduling_pb2 import ModelInfo

MODEL = ModelInfo(max_model_len=10_000, vocab_size=2000)
CHAT_DECODER = msgspec.json.Decoder(with_not_offered(ChatBody))
COMPLETION_DECODER = msgspec.json.Decoder(with_not_offered(CompletionBody))
MESSAGE = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "f"}}

OF_COMPLETIONS = {"logprobs"}
NEEDED = {"top_logprobs": {"logprobs": True}}
"""What a body must say beside the field."""
ITEMS: dict[str, Any] = {"stop": "x", "bad_words": "x", "messages": MESSAGE, "tools": TOOL}
"""An item of the lists that do not hold token ids."""
FRACTIONS = {
    *("temperature", "top_p", "min_p", "logit_bias"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
}


def refused(field: str, value: Any) -> str:
    """Return the field that is named in the refusal of the value; empty: it is taken."""
    fields = {"model": "m", field: value} | NEEDED.get(field, {})
    try:
        if field in OF_COMPLETIONS:
            raw = msgspec.json.encode({"prompt": "a"} | fields)
            [completion] = completion_requests(decode_body(COMPLETION_DECODER, raw), "")
            validate_options(completion.options, MODEL)
        else:
            raw = msgspec.json.encode({"messages": [MESSAGE]} | fields)
            [chat] = chat_requests(decode_body(CHAT_DECODER, raw), "")
            validate_options(chat.options, MODEL)
            validate_chat(chat, MODEL)
    except InvalidArgument as error:
        return error.field
    return ""


def around(word: str, limit: float, step: float) -> Iterator[tuple[float, bool]]:
    """Yield numbers at the limit and one step to each side, with whether they are in the range."""
    inward = -step if word.startswith("max") else step
    yield limit + inward, True
    yield limit, not word.startswith("exclusive")
    yield limit - inward, False


def cases(field: str, words: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    """Yield values of the field around each of its limits, with whether they are taken."""
    for word, limit in words.items():
        if word == "items":
            yield from (([value], is_good) for value, is_good in cases(field, limit))
        elif word == "additionalProperties":
            limits = {key: value for key, value in limit.items() if key != "type"}
            yield from (({"1": value}, is_good) for value, is_good in cases(field, limits))
        elif word == "not":
            yield from ((limit["const"] + step, step != 0) for step in (-1, 0, 1))
        elif word != "propertyNames":
            yield from sized(field, word, limit)


def sized(field: str, word: str, limit: float) -> Iterator[tuple[Any, bool]]:
    step = 0.125 if field in FRACTIONS and word != "maxProperties" else 1
    for size, is_good in around(word, limit, step):
        if word.endswith("Items"):
            yield [ITEMS.get(field, 7)] * int(size), is_good
        elif word.endswith("Length"):
            yield "x" * int(size), is_good
        elif word == "maxProperties":
            yield {str(token_id): 1 for token_id in range(int(size))}, is_good
        else:
            yield size, is_good


@pytest.mark.parametrize("field", sorted(RANGES))
def test_limits_are_taken_and_what_is_past_them_is_refused(field: str) -> None:
    tried = list(cases(field, RANGES[field]))
    assert {is_good for _, is_good in tried} == {True, False}
    for value, is_good in tried:
        assert refused(field, value) == ("" if is_good else field), value


@pytest.mark.parametrize("key", ["x", "-1", "1.5", "", str(2**32)])
def test_token_ids_are_the_keys_of_biases(key: str) -> None:
    assert refused("logit_bias", {key: 1}) == "logit_bias"


def test_every_range_is_of_a_field() -> None:
    fields = {*ChatBody.__struct_fields__, *CompletionBody.__struct_fields__}
    assert fields >= RANGES.keys()
