"""SamplingParams: vLLM's names and defaults, and sentences about values that do not fit."""

import dataclasses
from typing import Any

import pytest

from octavo import SamplingParams
from octavo.errors import InvalidArgument

# Of vLLM's own SamplingParams.
VLLM_DEFAULTS = {
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "seed": None,
    "stop": None,
    "stop_token_ids": None,
    "bad_words": None,
    "ignore_eos": False,
    "max_tokens": 16,
    "min_tokens": 0,
    "logprobs": None,
    "prompt_logprobs": None,
    "skip_special_tokens": True,
    "include_stop_str_in_output": False,
    "logit_bias": None,
    "allowed_token_ids": None,
    "truncate_prompt_tokens": None,
}


def test_names_and_defaults_are_vllms() -> None:
    assert dataclasses.asdict(SamplingParams()) == VLLM_DEFAULTS


def test_a_parameter_that_is_not_offered_is_named() -> None:
    unknown: dict[str, Any] = {"best_of": 2}
    with pytest.raises(TypeError, match="'best_of'"):
        SamplingParams(**unknown)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"n": 0}, "n is 0; expected `int` >= 1"),
        ({"top_k": -2}, "top_k is -2; expected `int` >= -1"),
        ({"max_tokens": 2**32}, "max_tokens is 4294967296; expected `int` <= 4294967295"),
        ({"max_tokens": "7"}, "max_tokens is '7'; expected `int | None`, got `str`"),
        ({"temperature": None}, "temperature is None; expected `float`, got `None`"),
        ({"logprobs": True}, "logprobs is True; expected `int | None`, got `bool`"),
        ({"bad_words": "one two"}, "bad_words is 'one two'; expected `array | None`, got `str`"),
        ({"stop_token_ids": [3, -1]}, "stop_token_ids is [3, -1]; expected `int` >= 0"),
        ({"logit_bias": {"3": 1.0}}, "logit_bias is {'3': 1.0}; expected `int`, got `str`"),
        ({"allowed_token_ids": []}, "allowed_token_ids is []; expected `array` of length >= 1"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        SamplingParams(**values).to_options()
    assert (refusal.value.message, refusal.value.field) == (sentence, next(iter(values)))


@pytest.mark.parametrize("nothing", [None, -1])
def test_a_seed_of_minus_one_is_none(nothing: int | None) -> None:
    assert not SamplingParams(seed=nothing).to_options().HasField("seed")
    assert SamplingParams(seed=-2).to_options().seed == 2**64 - 2


def test_every_way_to_give_lists_is_taken() -> None:
    options = SamplingParams(stop=("a", "b"), stop_token_ids=(1,), bad_words=["c"]).to_options()
    assert list(options.stop.stop) == ["a", "b"]
    assert (list(options.stop.stop_token_ids), list(options.bad_words)) == ([1], ["c"])
    assert list(SamplingParams(stop="ab").to_options().stop.stop) == ["ab"]
