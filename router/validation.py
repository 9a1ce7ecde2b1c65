"""Checks how clients want to be answered: the wire's options become ValidOptions, or an error."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
        truncate_prompt_tokens=_valid_truncation(options, max_tokens, model),
        cache_salt=_valid_cache_salt(options.cache_salt),
        echo=options.echo,
        priority=options.priority,
        request_id=options.request_id,
        return_token_ids=options.return_token_ids,
    )


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
    check_token_ids(token_ids, "stop_token_ids", model.vocab_size)
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


def _valid_truncation(
    options: inference_pb2.GenerationOptions,
    max_tokens: int | None,
    model: scheduling_pb2.ModelInfo,
) -> int | None:
    if not options.HasField("truncate_prompt_tokens"):
        return None
    kept = options.truncate_prompt_tokens
    check(
        kept > 0 or kept == -1,
        "truncate_prompt_tokens",
        f"truncate_prompt_tokens is {kept}; it must be at least 1, or -1 for what the context"
        " holds beside max_tokens",
    )
    return kept if kept > 0 else max(1, model.max_model_len - (max_tokens or 1))


def _valid_cache_salt(cache_salt: str) -> bytes:
    salt = cache_salt.encode()
    check(
        len(salt) <= MAX_CACHE_SALT_BYTES,
        "cache_salt",
        f"cache_salt has {len(salt)} bytes; at most {MAX_CACHE_SALT_BYTES} are taken",
    )
    return salt
