"""Which sampling parameters a request may have; a router has told the client so before.

The ranges are common.proto's. Comparisons are written so that what is not a number fails them.
"""

from collections.abc import Iterable

from octavo.errors import InvalidArgument
from octavo.v1 import common_pb2, scheduling_pb2

MAX_TEMPERATURE = 2
MAX_PENALTY = 2
MAX_BIAS = 100
MAX_BIASED_TOKENS = 300
MAX_ALLOWED_TOKENS = 1024
MAX_BAD_WORDS = 128
"""After tokenization: each of 32 texts may have several spellings."""
MAX_BAD_WORD_TOKENS = 66
"""A text has 64 bytes at most; the space before it takes a token, or two."""
MAX_CACHE_SALT_BYTES = 64
MAX_LOGPROBS = 20
MAX_PROMPT_LOGPROBS = 5


def check_sampling(submit: scheduling_pb2.SubmitRequest, vocab_size: int) -> None:
    """Raise InvalidArgument for the first parameter that is out of its range."""
    sampling = submit.sampling
    _check_range("temperature", sampling.temperature, 0, MAX_TEMPERATURE)
    if sampling.HasField("top_p") and not 0 < sampling.top_p <= 1:
        raise InvalidArgument(
            f"top_p is {sampling.top_p:g}; it has to be above 0 and at most 1.", field="top_p"
        )
    _check_range("min_p", sampling.min_p, 0, 1)
    _check_range("presence_penalty", sampling.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
    _check_range("frequency_penalty", sampling.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
    penalty = sampling.repetition_penalty
    if sampling.HasField("repetition_penalty") and not 0 < penalty < float("inf"):
        raise InvalidArgument(
            f"repetition_penalty is {penalty:g}; it has to be a number above 0.",
            field="repetition_penalty",
        )
    _check_logit_bias(sampling, vocab_size)
    _check_count("allowed_token_ids", len(sampling.allowed_token_ids), MAX_ALLOWED_TOKENS)
    _check_ids("allowed_token_ids", sampling.allowed_token_ids, vocab_size)
    _check_bad_words(submit, vocab_size)
    if submit.min_tokens > submit.max_tokens:
        raise InvalidArgument(
            f"min_tokens is {submit.min_tokens} and max_tokens is {submit.max_tokens}; it has to"
            " be the lower one.",
            field="min_tokens",
        )
    _check_range("logprobs", submit.num_logprobs, 0, MAX_LOGPROBS)
    _check_range("prompt_logprobs", submit.num_prompt_logprobs, 0, MAX_PROMPT_LOGPROBS)
    if len(submit.cache_salt) > MAX_CACHE_SALT_BYTES:
        raise InvalidArgument(
            f"cache_salt has {len(submit.cache_salt)} bytes; at most {MAX_CACHE_SALT_BYTES} are"
            " allowed.",
            field="cache_salt",
        )


def _check_logit_bias(sampling: common_pb2.SamplingParams, vocab_size: int) -> None:
    ids, values = sampling.logit_bias_token_ids, sampling.logit_bias_values
    if len(ids) != len(values):
        raise InvalidArgument(
            f"logit_bias has {len(ids)} token ids and {len(values)} values; give one for each.",
            field="logit_bias",
        )
    _check_count("logit_bias", len(ids), MAX_BIASED_TOKENS)
    _check_ids("logit_bias", ids, vocab_size)
    for value in values:
        _check_range("logit_bias", value, -MAX_BIAS, MAX_BIAS)


def _check_bad_words(submit: scheduling_pb2.SubmitRequest, vocab_size: int) -> None:
    _check_count("bad_words", len(submit.bad_words), MAX_BAD_WORDS)
    for word in submit.bad_words:
        if not 1 <= len(word.ids) <= MAX_BAD_WORD_TOKENS:
            raise InvalidArgument(
                f"bad_words has a word of {len(word.ids)} tokens; each has to have"
                f" 1..{MAX_BAD_WORD_TOKENS}.",
                field="bad_words",
            )
        _check_ids("bad_words", word.ids, vocab_size)


def _check_range(field: str, value: float, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidArgument(
            f"{field} is {value:g}; it has to lie in {least}..{most}.", field=field
        )


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidArgument(f"{field} has {count} entries; at most {most} fit.", field=field)


def _check_ids(field: str, ids: Iterable[int], vocab_size: int) -> None:
    largest = max(ids, default=0)
    if largest >= vocab_size:
        raise InvalidArgument(
            f"{field} has the token id {largest}; the model's ids are below {vocab_size}.",
            field=field,
        )
