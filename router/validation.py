"""Checks what clients send: the wire's options become ValidOptions, or an error names the field."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from octavo.v1 import common_pb2, inference_pb2, scheduling_pb2

from .checks import check, check_count, check_token_ids
from .sampling_validation import valid_sampling

MAX_OUTPUTS = 16
MAX_STOP_STRINGS = 16
MAX_STOP_STRING_BYTES = 256
MAX_STOP_TOKEN_IDS = 256
MAX_REQUEST_ID_CHARACTERS = 128
MAX_LOGPROBS = 20
MAX_PROMPT_LOGPROBS = 5
MAX_BAD_WORDS = 32
MAX_BAD_WORD_BYTES = 64
MAX_CACHE_SALT_BYTES = 64
MAX_TOOLS = 128
MAX_TOOLS_BYTES = 64 * 1024

# No tokenizer needs more for what fits a context, by far; and more would only cost time.
_MAX_PROMPT_BYTES_PER_TOKEN = 16
_MAX_PROMPT_BYTES = 4 * 1024 * 1024

_EMPTY_PROMPT = "the prompt is empty; send some text or some token ids"

_NUM_SEEDS = 2**64
_NO_DEFAULTS = common_pb2.SamplingParams()


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
    min_tokens: int
    include_stop_string: bool
    bad_words: tuple[str, ...]
    num_logprobs: int | None
    """None: not wanted."""
    num_prompt_logprobs: int | None
    skip_special_tokens: bool
    truncate_prompt_tokens: int | None
    """None: the prompt is kept whole."""
    cache_salt: bytes
    echo: bool
    priority: int
    request_id: str
    return_token_ids: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidConversation:
    """A conversation as chat templates take it."""

    messages: list[dict[str, str]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


def validate_options(
    options: inference_pb2.GenerationOptions,
    model: scheduling_pb2.ModelInfo,
    defaults: common_pb2.SamplingParams = _NO_DEFAULTS,
) -> ValidOptions:
    """Return the options with defaults filled in; raises InvalidArgument.

    Args:
        options: what the client sent.
        model: what the scheduler serves.
        defaults: how to sample where the client does not say.
    """
    n = options.n if options.HasField("n") else 1
    check(1 <= n <= MAX_OUTPUTS, "n", f"n is {n}; it must be between 1 and {MAX_OUTPUTS}")
    check(
        options.priority == 0 or model.has_priorities,
        "priority",
        f"priority is {options.priority}, but this server does not schedule by priority; leave it"
        " out, or start the scheduler with --scheduling-policy priority",
    )
    check(
        len(options.request_id) <= MAX_REQUEST_ID_CHARACTERS
        and options.request_id.isascii()
        and options.request_id.isprintable(),
        "request_id",
        f"request_id must be at most {MAX_REQUEST_ID_CHARACTERS} printable ASCII characters",
    )
    seed = options.seed if options.HasField("seed") else secrets.randbits(64)
    stop = options.stop
    own_stop_token_ids = () if stop.ignore_eos else model.eos_token_ids
    max_tokens = _valid_max_tokens(stop)
    return ValidOptions(
        sampling=valid_sampling(options.sampling, defaults, model),
        seeds=tuple((seed + index) % _NUM_SEEDS for index in range(n)),
        max_tokens=max_tokens,
        stop_strings=_valid_stop_strings(stop.stop),
        stop_token_ids=_valid_stop_token_ids(stop.stop_token_ids, model).union(own_stop_token_ids),
        min_tokens=_valid_min_tokens(stop, max_tokens, model),
        include_stop_string=stop.include_stop_str_in_output,
        bad_words=_valid_bad_words(options.bad_words),
        num_logprobs=_valid_num_logprobs(options, "logprobs", MAX_LOGPROBS),
        num_prompt_logprobs=_valid_num_logprobs(options, "prompt_logprobs", MAX_PROMPT_LOGPROBS),
        skip_special_tokens=(
            options.skip_special_tokens if options.HasField("skip_special_tokens") else True
        ),
        truncate_prompt_tokens=_valid_truncation(options),
        cache_salt=_valid_cache_salt(options.cache_salt),
        echo=options.echo,
        priority=options.priority,
        request_id=options.request_id,
        return_token_ids=options.return_token_ids,
    )


def validate_chat(
    request: inference_pb2.ChatRequest, model: scheduling_pb2.ModelInfo
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
    check(
        not request.options.echo,
        "echo",
        "echo repeats prompts, and a conversation is none; leave it out",
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
    num_bytes = sum(len(message.content.encode()) for message in messages)
    check_text_bytes(num_bytes, "messages", model)
    return [{"role": message.role, "content": message.content} for message in messages]


def validate_prompt_text(text: str, model: scheduling_pb2.ModelInfo) -> str:
    check(text != "", "prompt", _EMPTY_PROMPT)
    check_text_bytes(len(text.encode()), "prompt", model)
    return text


def validate_prompt_token_ids(
    token_ids: Sequence[int], model: scheduling_pb2.ModelInfo
) -> list[int]:
    check(len(token_ids) > 0, "prompt", _EMPTY_PROMPT)
    check_token_ids(token_ids, "prompt", model)
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


def _valid_max_tokens(stop: common_pb2.StopConditions) -> int | None:
    if not stop.HasField("max_tokens"):
        return None
    check(stop.max_tokens > 0, "max_tokens", "max_tokens is 0; it must be at least 1")
    return stop.max_tokens


def _valid_stop_strings(stop_strings: Sequence[str]) -> tuple[str, ...]:
    check_count(len(stop_strings), MAX_STOP_STRINGS, "stop", "strings")
    for index, stop_string in enumerate(stop_strings):
        num_bytes = len(stop_string.encode())
        check(num_bytes > 0, "stop", f"stop[{index}] is empty; leave it out")
        check(
            num_bytes <= MAX_STOP_STRING_BYTES,
            "stop",
            f"stop[{index}] has {num_bytes} bytes; at most {MAX_STOP_STRING_BYTES} are taken",
        )
    return tuple(stop_strings)


def _valid_stop_token_ids(
    token_ids: Sequence[int], model: scheduling_pb2.ModelInfo
) -> frozenset[int]:
    check_count(len(token_ids), MAX_STOP_TOKEN_IDS, "stop_token_ids", "ids")
    check_token_ids(token_ids, "stop_token_ids", model)
    return frozenset(token_ids)


def _valid_min_tokens(
    stop: common_pb2.StopConditions, max_tokens: int | None, model: scheduling_pb2.ModelInfo
) -> int:
    most = model.max_model_len if max_tokens is None else max_tokens
    check(
        stop.min_tokens <= most,
        "min_tokens",
        f"min_tokens is {stop.min_tokens}; it must be at most"
        f" {'the context of' if max_tokens is None else 'max_tokens, which is'} {most}",
    )
    return stop.min_tokens


def _valid_bad_words(bad_words: Sequence[str]) -> tuple[str, ...]:
    check_count(len(bad_words), MAX_BAD_WORDS, "bad_words", "texts")
    for index, word in enumerate(bad_words):
        num_bytes = len(word.encode())
        check(word.strip() != "", "bad_words", f"bad_words[{index}] is empty; leave it out")
        check(
            num_bytes <= MAX_BAD_WORD_BYTES,
            "bad_words",
            f"bad_words[{index}] has {num_bytes} bytes; at most {MAX_BAD_WORD_BYTES} are taken",
        )
    return tuple(bad_words)


def _valid_num_logprobs(
    options: inference_pb2.GenerationOptions,
    field: Literal["logprobs", "prompt_logprobs"],
    most: int,
) -> int | None:
    if not options.HasField(field):
        return None
    count: int = getattr(options, field)
    check(count <= most, field, f"{field} is {count}; it must be between 0 and {most}")
    return count


def _valid_truncation(options: inference_pb2.GenerationOptions) -> int | None:
    if not options.HasField("truncate_prompt_tokens"):
        return None
    check(
        options.truncate_prompt_tokens > 0,
        "truncate_prompt_tokens",
        "truncate_prompt_tokens is 0; it must be at least 1",
    )
    return options.truncate_prompt_tokens


def _valid_cache_salt(cache_salt: str) -> bytes:
    salt = cache_salt.encode()
    check(
        len(salt) <= MAX_CACHE_SALT_BYTES,
        "cache_salt",
        f"cache_salt has {len(salt)} bytes; at most {MAX_CACHE_SALT_BYTES} are taken",
    )
    return salt


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
    check(len(tools) > 0, "tools", "tools is empty; leave it out")
    check_count(len(tools), MAX_TOOLS, "tools", "tools")
    return list(tools)
