"""Checks how the next token is to be drawn, and fills in what the model's authors advise."""

import math
from functools import lru_cache

from octavo.v1 import common_pb2, scheduling_pb2

from .checks import check, check_count, check_token_ids, shown

MAX_LOGIT_BIASES = 300
MAX_LOGIT_BIAS = 100
MAX_ALLOWED_TOKEN_IDS = 1024
MAX_PENALTY = 2


def valid_sampling(
    given: common_pb2.SamplingParams,
    defaults: common_pb2.SamplingParams,
    model: scheduling_pb2.ModelInfo,
) -> common_pb2.SamplingParams:
    """Return what is given, with `defaults` where it is absent; raises InvalidArgument.

    Fields that change nothing are absent from the result, so that the rows of requests without
    them stay as cheap as they can be. Requests that ask for the same share one result.
    """
    # Most requests of a client draw alike. One message after the other is both, merged.
    merged = defaults.SerializeToString() + given.SerializeToString()
    return _valid_sampling(merged, model.vocab_size)


@lru_cache(maxsize=256)
def _valid_sampling(merged: bytes, vocab_size: int) -> common_pb2.SamplingParams:
    sampling = common_pb2.SamplingParams(temperature=1, top_p=1, top_k=0)
    sampling.MergeFromString(merged)
    check_ranges(sampling)
    _check_lists(sampling, vocab_size)
    for name, neutral in _NEUTRAL.items():
        if getattr(sampling, name) == neutral:
            sampling.ClearField(name)
    return sampling


# protobuf's stubs want names of fields as literals.
_NEUTRAL: dict[
    "common_pb2.SamplingParams._ClearFieldArgType", float  # type: ignore[name-defined]
] = {
    "min_p": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
}


def check_ranges(sampling: common_pb2.SamplingParams) -> None:
    """Raise InvalidArgument for a number out of its range. Not a number is not in any."""
    _check_between(sampling, "temperature", 0, 2)
    top_p = sampling.top_p
    check(
        not sampling.HasField("top_p") or 0 < top_p <= 1,
        "top_p",
        f"top_p is {shown(top_p)}; it must be above 0 and at most 1",
    )
    _check_between(sampling, "min_p", 0, 1)
    _check_between(sampling, "presence_penalty", -MAX_PENALTY, MAX_PENALTY)
    _check_between(sampling, "frequency_penalty", -MAX_PENALTY, MAX_PENALTY)
    repetition = sampling.repetition_penalty
    check(
        not sampling.HasField("repetition_penalty") or 0 < repetition < math.inf,
        "repetition_penalty",
        f"repetition_penalty is {shown(repetition)}; it must be above 0 and finite",
    )


def _check_between(
    sampling: common_pb2.SamplingParams, name: str, least: float, most: float
) -> None:
    value = getattr(sampling, name)
    check(
        least <= value <= most,
        name,
        f"{name} is {shown(value)}; it must be between {least} and {most}",
    )


def _check_lists(sampling: common_pb2.SamplingParams, vocab_size: int) -> None:
    biased, biases = sampling.logit_bias_token_ids, sampling.logit_bias_values
    check(
        len(biased) == len(biases),
        "logit_bias",
        f"logit_bias has {len(biased)} token ids and {len(biases)} values; send one for each",
    )
    check_count(len(biased), MAX_LOGIT_BIASES, "logit_bias", "token ids")
    check_token_ids(biased, "logit_bias", vocab_size)
    for token_id, bias in zip(biased, biases, strict=True):
        check(
            -MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS,
            "logit_bias",
            f"logit_bias of token {token_id} is {shown(bias)}; it must be between"
            f" -{MAX_LOGIT_BIAS} and {MAX_LOGIT_BIAS}",
        )
    allowed = sampling.allowed_token_ids
    check_count(len(allowed), MAX_ALLOWED_TOKEN_IDS, "allowed_token_ids", "ids")
    check_token_ids(allowed, "allowed_token_ids", vocab_size)
