"""Requests that are refused, each with the reason; they leave nothing behind."""

from collections.abc import Callable

import pytest

from octavo.errors import InvalidArgument, Overloaded, RequestError, Unsupported
from octavo.scheduler.config import GroupConfig
from octavo.scheduler.scheduler import Scheduler
from octavo.v1 import scheduling_pb2
from tests.scheduler.driver import Driver, config
from tests.scheduler.stream_model import expected_output

Change = Callable[[scheduling_pb2.SubmitRequest], object]


def valid_request() -> scheduling_pb2.SubmitRequest:
    return scheduling_pb2.SubmitRequest(
        request_key=bytes(16), prompt_token_ids=[1, 2], n=1, seeds=[0], max_tokens=4
    )


def _bias(request: scheduling_pb2.SubmitRequest, token_id: int, value: float) -> None:
    request.sampling.logit_bias_token_ids.append(token_id)
    request.sampling.logit_bias_values.append(value)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda r: r.ClearField("prompt_token_ids"), "prompt", "no tokens"),
        (lambda r: r.prompt_token_ids.extend([1] * 62), "prompt", "64 tokens and the context"),
        (lambda r: r.prompt_token_ids.append(8), "prompt", "token id 8; .* below 8"),
        (lambda r: r.delivered.add(token_ids=[9]), "delivered", "token id 9"),
        (lambda r: setattr(r.sampling, "temperature", -0.5), "temperature", "is -0.5"),
        (lambda r: setattr(r.sampling, "temperature", float("nan")), "temperature", "is nan"),
        (lambda r: setattr(r.sampling, "top_p", 0), "top_p", "is 0"),
        (lambda r: setattr(r.sampling, "top_p", 1.5), "top_p", "is 1.5"),
        (lambda r: setattr(r.sampling, "min_p", 1.1), "min_p", "is 1.1"),
        (lambda r: setattr(r.sampling, "presence_penalty", -2.1), "presence_penalty", "-2..2"),
        (lambda r: setattr(r.sampling, "frequency_penalty", 3), "frequency_penalty", "-2..2"),
        (lambda r: setattr(r.sampling, "repetition_penalty", 0), "repetition_penalty", "above 0"),
        (lambda r: r.sampling.logit_bias_token_ids.append(1), "logit_bias", "1 .* and 0 values"),
        (lambda r: _bias(r, 8, 1), "logit_bias", "token id 8"),
        (lambda r: _bias(r, 1, 101), "logit_bias", "101; it has to lie in -100..100"),
        (
            lambda r: r.sampling.allowed_token_ids.extend([1] * 1025),
            "allowed_token_ids",
            "1025 entries; at most 1024",
        ),
        (lambda r: r.sampling.allowed_token_ids.append(8), "allowed_token_ids", "token id 8"),
        (lambda r: r.bad_words.add(), "bad_words", "a word of 0 tokens"),
        (lambda r: r.bad_words.add(ids=[8]), "bad_words", "token id 8"),
        (lambda r: setattr(r, "min_tokens", 5), "min_tokens", "is 5 and max_tokens is 4"),
        (lambda r: setattr(r, "num_logprobs", 21), "logprobs", "is 21; .* 0..20"),
        (lambda r: setattr(r, "num_prompt_logprobs", 6), "prompt_logprobs", "is 6; .* 0..5"),
        (lambda r: setattr(r, "cache_salt", bytes(65)), "cache_salt", "65 bytes; at most 64"),
        (lambda r: setattr(r, "n", 0), "n", "n is 0"),
        (lambda r: setattr(r, "n", 9), "n", "1..8"),
        (lambda r: r.seeds.append(1), "seed", "2 seeds for n = 1"),
        (lambda r: setattr(r, "max_tokens", 0), "max_tokens", "at least 1"),
        (lambda r: setattr(r, "request_key", b"short"), "", "5 bytes"),
        (lambda r: setattr(r, "block_hashes", b"x"), "", "block_hashes has 1 bytes"),
        (lambda r: r.delivered.add(output_index=1), "", "below n = 1"),
        (lambda r: r.delivered.add(token_ids=[1] * 5), "", "may have 4"),
    ],
)
def test_wrong_field_is_named(change: Change, field: str, words: str) -> None:
    scheduler, request = Scheduler(config()), valid_request()
    change(request)
    with pytest.raises(InvalidArgument, match=words) as caught:
        scheduler.submit(request, 0)
    assert caught.value.field == field
    assert scheduler.is_idle


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.media.add(),
        lambda r: r.grammar.SetInParent(),
        lambda r: setattr(r, "adapter", "a"),
    ],
    ids=["media", "grammar", "adapter"],
)
def test_what_is_not_offered_is_refused(change: Change) -> None:
    request = valid_request()
    change(request)
    with pytest.raises(Unsupported):
        Scheduler(config()).submit(request, 0)


def test_prompt_that_no_pool_could_hold_is_refused() -> None:
    driver = Driver(config(kv_groups=(GroupConfig(num_blocks=3),)))
    with pytest.raises(InvalidArgument, match="12 tokens and the context holds 12"):
        driver.submit([1] * 12)
    key = driver.submit([1] * 11)
    driver.run_to_end()
    assert len(driver.output(key)) == 1


def test_queue_is_bounded_by_requests() -> None:
    driver = Driver(config(max_num_queued_requests=2))
    driver.submit([1], n=3)
    driver.submit([2])
    with pytest.raises(Overloaded) as caught:
        driver.submit([3])
    assert caught.value.retry_after_s
    driver.step()
    driver.submit([3])
    driver.run_to_end()
    driver.check_end()


def test_queue_is_bounded_by_tokens() -> None:
    driver = Driver(config(max_num_queued_tokens=10))
    driver.submit([1] * 8)
    with pytest.raises(RequestError, match="8 prompt tokens and at most 10"):
        driver.submit([2] * 3)
    driver.submit([2] * 2)


def test_known_key_changes_nothing() -> None:
    driver = Driver(config())
    key = driver.submit([1, 2])
    driver.scheduler.submit(driver.requests[key].submit, driver.now_ns)
    assert driver.scheduler.num_waiting == 1
    driver.run_to_end()
    driver.check_end()


def test_delivered_output_goes_on_at_the_next_position() -> None:
    driver = Driver(config())
    whole = expected_output([1, 2], 7, 8)
    key = driver.submit([1, 2], seed=7, delivered=[(0, whole[:3])])
    driver.run_to_end()
    assert driver.output(key) == whole
    usage = driver.requests[key].usage
    assert usage is not None
    assert (usage.num_output_tokens, usage.num_resumptions) == (8, 1)


def test_delivered_output_that_is_complete_ends_at_once() -> None:
    driver = Driver(config())
    driver.submit([1, 2], max_tokens=3, delivered=[(0, expected_output([1, 2], 0, 3))])
    assert driver.scheduler.is_idle
    assert driver.plan() is None
