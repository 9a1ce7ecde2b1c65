"""Checks what clients send: the wire's options become ValidOptions, or an error names the field."""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.errors import InvalidArgument
from octavo.v1 import common_pb2, inference_pb2, scheduling_pb2

MAX_OUTPUTS = 8
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_BYTES = 256
MAX_STOP_TOKEN_IDS = 256
MAX_REQUEST_ID_CHARACTERS = 128

# No tokenizer needs more for what fits a context, by far; and more would only cost time.
_MAX_PROMPT_BYTES_PER_TOKEN = 16
_MAX_PROMPT_BYTES = 4 * 1024 * 1024

_EMPTY_PROMPT = "the prompt is empty; send some text or some token ids"

_NUM_SEEDS = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidOptions:
    """GenerationOptions in which every field has a value that can be served."""

    sampling: common_pb2.SamplingParams
    seeds: tuple[int, ...]
    """One for each output."""
    max_tokens: int | None
    """None: as many as the context holds."""
    stop_strings: tuple[str, ...]
    stop_token_ids: frozenset[int]
    """With the model's own, unless they are to be ignored."""
    priority: int
    request_id: str
    return_token_ids: bool


def validate_options(
    options: inference_pb2.GenerationOptions, model: scheduling_pb2.ModelInfo
) -> ValidOptions:
    """Return the options with defaults filled in; raises InvalidArgument."""
    n = options.n if options.HasField("n") else 1
    _check(1 <= n <= MAX_OUTPUTS, "n", f"n is {n}; it must be between 1 and {MAX_OUTPUTS}")
    _check(
        options.priority == 0 or model.has_priorities,
        "priority",
        f"priority is {options.priority}, but this server does not schedule by priority; leave it"
        " out, or start the scheduler with --scheduling-policy priority",
    )
    _check(
        len(options.request_id) <= MAX_REQUEST_ID_CHARACTERS
        and options.request_id.isascii()
        and options.request_id.isprintable(),
        "request_id",
        f"request_id must be at most {MAX_REQUEST_ID_CHARACTERS} printable ASCII characters",
    )
    seed = options.seed if options.HasField("seed") else secrets.randbits(64)
    stop = options.stop
    own_stop_token_ids = () if stop.ignore_eos else model.eos_token_ids
    return ValidOptions(
        sampling=_valid_sampling(options.sampling),
        seeds=tuple((seed + index) % _NUM_SEEDS for index in range(n)),
        max_tokens=_valid_max_tokens(stop),
        stop_strings=_valid_stop_strings(stop.stop),
        stop_token_ids=_valid_stop_token_ids(stop.stop_token_ids, model).union(own_stop_token_ids),
        priority=options.priority,
        request_id=options.request_id,
        return_token_ids=options.return_token_ids,
    )


def validate_messages(
    messages: Sequence[inference_pb2.ChatMessage], model: scheduling_pb2.ModelInfo
) -> list[dict[str, str]]:
    """Return the messages as chat templates take them; raises InvalidArgument."""
    _check(len(messages) > 0, "messages", "messages is empty; send at least one message")
    for index, message in enumerate(messages):
        _check(
            message.role != "",
            "messages",
            f"messages[{index}] has no role; say who speaks: system, user or assistant",
        )
    num_bytes = sum(len(message.content.encode()) for message in messages)
    check_text_bytes(num_bytes, "messages", model)
    return [{"role": message.role, "content": message.content} for message in messages]


def validate_prompt_text(text: str, model: scheduling_pb2.ModelInfo) -> str:
    _check(text != "", "prompt", _EMPTY_PROMPT)
    check_text_bytes(len(text.encode()), "prompt", model)
    return text


def validate_prompt_token_ids(
    token_ids: Sequence[int], model: scheduling_pb2.ModelInfo
) -> list[int]:
    _check(len(token_ids) > 0, "prompt", _EMPTY_PROMPT)
    check_token_ids(token_ids, "prompt", model)
    return list(token_ids)


def check_text_bytes(num_bytes: int, field: str, model: scheduling_pb2.ModelInfo) -> None:
    """Raise InvalidArgument for text that is not worth tokenizing: it cannot fit the context."""
    limit = max_prompt_bytes(model)
    _check(
        num_bytes <= limit,
        field,
        f"{field} has {num_bytes} bytes of text; at most {limit} are taken for a context of"
        f" {model.max_model_len} tokens",
    )


def check_token_ids(token_ids: Sequence[int], field: str, model: scheduling_pb2.ModelInfo) -> None:
    """Raise InvalidArgument unless the model has these tokens."""
    largest = max(token_ids, default=0)
    _check(
        largest < model.vocab_size,
        field,
        f"{field} has the token id {largest}; the model's ids are below {model.vocab_size}",
    )


def check_fits_context(num_prompt_tokens: int, field: str, model: scheduling_pb2.ModelInfo) -> None:
    """Raise InvalidArgument unless the prompt leaves room for a token of output."""
    _check(num_prompt_tokens > 0, field, _EMPTY_PROMPT)
    _check(
        num_prompt_tokens < model.max_model_len,
        field,
        f"prompt has {num_prompt_tokens} tokens, the context holds {model.max_model_len} including"
        " the output; send a shorter prompt",
    )


def max_prompt_bytes(model: scheduling_pb2.ModelInfo) -> int:
    return min(_MAX_PROMPT_BYTES, _MAX_PROMPT_BYTES_PER_TOKEN * model.max_model_len)


def _valid_sampling(sampling: common_pb2.SamplingParams) -> common_pb2.SamplingParams:
    temperature = sampling.temperature if sampling.HasField("temperature") else 1.0
    top_p = sampling.top_p if sampling.HasField("top_p") else 1.0
    _check(
        # Not a number is not between anything.
        0 <= temperature <= 2,
        "temperature",
        f"temperature is {_shown(temperature)}; it must be between 0 and 2",
    )
    _check(0 < top_p <= 1, "top_p", f"top_p is {_shown(top_p)}; it must be above 0 and at most 1")
    return common_pb2.SamplingParams(temperature=temperature, top_p=top_p, top_k=sampling.top_k)


def _valid_max_tokens(stop: common_pb2.StopConditions) -> int | None:
    if not stop.HasField("max_tokens"):
        return None
    _check(stop.max_tokens > 0, "max_tokens", "max_tokens is 0; it must be at least 1")
    return stop.max_tokens


def _valid_stop_strings(stop_strings: Sequence[str]) -> tuple[str, ...]:
    _check(
        len(stop_strings) <= MAX_STOP_STRINGS,
        "stop",
        f"stop has {len(stop_strings)} strings; at most {MAX_STOP_STRINGS} are taken",
    )
    for index, stop_string in enumerate(stop_strings):
        num_bytes = len(stop_string.encode())
        _check(num_bytes > 0, "stop", f"stop[{index}] is empty; leave it out")
        _check(
            num_bytes <= MAX_STOP_STRING_BYTES,
            "stop",
            f"stop[{index}] has {num_bytes} bytes; at most {MAX_STOP_STRING_BYTES} are taken",
        )
    return tuple(stop_strings)


def _valid_stop_token_ids(
    token_ids: Sequence[int], model: scheduling_pb2.ModelInfo
) -> frozenset[int]:
    _check(
        len(token_ids) <= MAX_STOP_TOKEN_IDS,
        "stop_token_ids",
        f"stop_token_ids has {len(token_ids)} ids; at most {MAX_STOP_TOKEN_IDS} are taken",
    )
    check_token_ids(token_ids, "stop_token_ids", model)
    return frozenset(token_ids)


def _shown(value: float) -> str:
    """Return the number as the client wrote it: the wire rounds it to 32 bits."""
    return f"{value:.6g}" if math.isfinite(value) else str(value)


def _check(is_good: bool, field: str, message: str) -> None:
    if not is_good:
        raise InvalidArgument(message, field=field)
