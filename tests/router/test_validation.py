"""Every option a client can get wrong, and what it is told."""

import math
from collections.abc import Callable

import pytest

from octavo.errors import InvalidArgument
from octavo.router.validation import validate_options
from octavo.v1.common_pb2 import SamplingParams
from octavo.v1.inference_pb2 import GenerationOptions
from octavo.v1.scheduling_pb2 import ModelInfo

MODEL = ModelInfo(served_names=["tiny"], max_model_len=100, vocab_size=50, eos_token_ids=[2, 3])

nan, infinity = math.nan, math.inf


def options(change: Callable[[GenerationOptions], object]) -> GenerationOptions:
    changed = GenerationOptions(model="tiny")
    change(changed)
    return changed


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (lambda o: setattr(o.sampling, "temperature", 3), "temperature", "temperature is 3; it"),
        (lambda o: setattr(o.sampling, "temperature", -0.1), "temperature", "is -0.1; it must be"),
        (lambda o: setattr(o.sampling, "temperature", nan), "temperature", "is nan; it must be"),
        (lambda o: setattr(o.sampling, "temperature", infinity), "temperature", "is inf; it must"),
        (lambda o: setattr(o.sampling, "top_p", 0), "top_p", "top_p is 0; it must be above 0"),
        (lambda o: setattr(o.sampling, "top_p", 1.5), "top_p", "top_p is 1.5; it must be above 0"),
        (lambda o: setattr(o.sampling, "top_p", nan), "top_p", "top_p is nan; it must be above 0"),
        (lambda o: setattr(o.stop, "max_tokens", 0), "max_tokens", "max_tokens is 0; it must be"),
        (lambda o: setattr(o, "n", 0), "n", "n is 0; it must be between 1 and 16"),
        (lambda o: setattr(o, "n", 17), "n", "n is 17; it must be between 1 and 16"),
        (lambda o: o.stop.stop.extend(["x"] * 17), "stop", "stop has 17 strings; at most 16"),
        (lambda o: o.stop.stop.append("é" * 129), "stop", "stop[0] has 258 bytes; at most 256"),
        (lambda o: o.stop.stop.extend(["x", ""]), "stop", "stop[1] is empty; leave it out"),
        (
            lambda o: o.stop.stop_token_ids.extend([49, 50]),
            "stop_token_ids",
            "stop_token_ids has the token id 50; the model's ids are below 50",
        ),
        (
            lambda o: o.stop.stop_token_ids.extend([1] * 257),
            "stop_token_ids",
            "stop_token_ids has 257 ids; at most 256",
        ),
        (lambda o: setattr(o, "priority", -1), "priority", "--scheduling-policy priority"),
        (lambda o: setattr(o, "request_id", "é"), "request_id", "128 printable ASCII"),
        (lambda o: setattr(o, "request_id", "a\n"), "request_id", "128 printable ASCII"),
        (lambda o: setattr(o, "request_id", "a" * 129), "request_id", "128 printable ASCII"),
    ],
)
def test_a_wrong_option_is_named(
    change: Callable[[GenerationOptions], object], field: str, message: str
) -> None:
    with pytest.raises(InvalidArgument) as error:
        validate_options(options(change), MODEL)
    assert error.value.field == field
    assert message in error.value.message


def test_absent_fields_take_their_defaults() -> None:
    valid = validate_options(GenerationOptions(model="tiny"), MODEL)
    assert (valid.sampling.temperature, valid.sampling.top_p, valid.sampling.top_k) == (1, 1, 0)
    assert valid.max_tokens is None
    assert valid.stop_token_ids == {2, 3}
    assert len(valid.seeds) == 1


def test_each_output_has_its_own_seed() -> None:
    valid = validate_options(GenerationOptions(n=3, seed=2**64 - 2), MODEL)
    assert valid.seeds == (2**64 - 2, 2**64 - 1, 0)


def test_seeds_are_drawn_where_none_is_given() -> None:
    drawn = {validate_options(GenerationOptions(), MODEL).seeds for _ in range(8)}
    assert len(drawn) == 8


def test_the_models_end_tokens_can_be_ignored() -> None:
    changed = options(lambda o: o.stop.stop_token_ids.append(7))
    changed.stop.ignore_eos = True
    assert validate_options(changed, MODEL).stop_token_ids == {7}


def test_priorities_are_taken_where_the_scheduler_has_them() -> None:
    model = ModelInfo()
    model.CopyFrom(MODEL)
    model.has_priorities = True
    assert validate_options(GenerationOptions(priority=-3), model).priority == -3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda o: setattr(o.sampling, "min_p", 1.01), "min_p"),
        (lambda o: setattr(o.sampling, "min_p", nan), "min_p"),
        (lambda o: setattr(o.sampling, "presence_penalty", 2.01), "presence_penalty"),
        (lambda o: setattr(o.sampling, "frequency_penalty", -2.01), "frequency_penalty"),
        (lambda o: setattr(o.sampling, "repetition_penalty", 0), "repetition_penalty"),
        (lambda o: setattr(o.sampling, "repetition_penalty", infinity), "repetition_penalty"),
        (lambda o: o.sampling.logit_bias_token_ids.append(1), "logit_bias"),
        (lambda o: bias(o, 50, 1), "logit_bias"),
        (lambda o: bias(o, 49, 100.5), "logit_bias"),
        (lambda o: bias(o, 1, 1, times=301), "logit_bias"),
        (lambda o: o.sampling.allowed_token_ids.append(50), "allowed_token_ids"),
        (lambda o: o.sampling.allowed_token_ids.extend([1] * 1025), "allowed_token_ids"),
        (lambda o: setattr(o.stop, "min_tokens", 101), "min_tokens"),
        (lambda o: o.bad_words.extend(["x"] * 33), "bad_words"),
        (lambda o: o.bad_words.append(" "), "bad_words"),
        (lambda o: o.bad_words.append("x" * 65), "bad_words"),
        (lambda o: setattr(o, "logprobs", 21), "logprobs"),
        (lambda o: setattr(o, "prompt_logprobs", 6), "prompt_logprobs"),
        (lambda o: setattr(o, "truncate_prompt_tokens", 0), "truncate_prompt_tokens"),
        (lambda o: setattr(o, "truncate_prompt_tokens", -2), "truncate_prompt_tokens"),
        (lambda o: setattr(o, "cache_salt", "é" * 33), "cache_salt"),
    ],
)
def test_a_wrong_parameter_is_named(
    change: Callable[[GenerationOptions], object], field: str
) -> None:
    with pytest.raises(InvalidArgument, match=field) as error:
        validate_options(options(change), MODEL)
    assert error.value.field == field


@pytest.mark.parametrize(("max_tokens", "kept"), [(None, 99), (30, 70), (100, 1), (1000, 1)])
def test_minus_one_keeps_what_the_context_holds_beside_the_output(
    max_tokens: int | None, kept: int
) -> None:
    wanted = GenerationOptions(truncate_prompt_tokens=-1)
    if max_tokens is not None:
        wanted.stop.max_tokens = max_tokens
    assert validate_options(wanted, MODEL).truncate_prompt_tokens == kept


def test_min_tokens_is_at_most_max_tokens() -> None:
    changed = options(lambda o: setattr(o.stop, "max_tokens", 4))
    changed.stop.min_tokens = 4
    assert validate_options(changed, MODEL).min_tokens == 4
    changed.stop.min_tokens = 5
    with pytest.raises(InvalidArgument, match="min_tokens is 5; it must be at most max_tokens"):
        validate_options(changed, MODEL)


def test_what_changes_nothing_is_left_out_and_defaults_fill_what_is_absent() -> None:
    changed = options(lambda o: setattr(o.sampling, "repetition_penalty", 1))
    changed.sampling.temperature = 0
    defaults = SamplingParams(temperature=0.6, top_k=20, repetition_penalty=1.1)
    sampling = validate_options(changed, MODEL, defaults).sampling
    assert sampling == SamplingParams(temperature=0, top_p=1, top_k=20)


def bias(changed: GenerationOptions, token_id: int, value: float, *, times: int = 1) -> None:
    changed.sampling.logit_bias_token_ids.extend([token_id] * times)
    changed.sampling.logit_bias_values.extend([value] * times)
