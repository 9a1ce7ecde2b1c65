"""How much a request may ask of a scheduler: just below the limit, at it, and just above it."""

from collections.abc import Callable

import pytest

from octavo.errors import InvalidArgument, Overloaded
from octavo.scheduler.scheduler import Scheduler
from octavo.v1.scheduling_pb2 import SubmitRequest
from tests.scheduler.driver import config


def request(key: int = 0, num_prompt_tokens: int = 1) -> SubmitRequest:
    return SubmitRequest(
        request_key=key.to_bytes(16, "big"),
        prompt_token_ids=[1] * num_prompt_tokens,
        n=1,
        seeds=[0],
        max_tokens=4,
    )


def ask_outputs(submit: SubmitRequest, count: int) -> None:
    submit.n = count
    submit.seeds[:] = range(count)


def bias(submit: SubmitRequest, count: int) -> None:
    submit.sampling.logit_bias_token_ids.extend([1] * count)
    submit.sampling.logit_bias_values.extend([1] * count)


def ban(submit: SubmitRequest, count: int) -> None:
    for _ in range(count):
        submit.bad_words.add(ids=[1])


@pytest.mark.parametrize(
    ("limit", "change", "field"),
    [
        (8, ask_outputs, "n"),
        (63, lambda r, k: r.prompt_token_ids.extend([1] * (k - 1)), "prompt"),
        (7, lambda r, k: r.prompt_token_ids.append(k), "prompt"),
        (4, lambda r, k: setattr(r, "min_tokens", k), "min_tokens"),
        (20, lambda r, k: setattr(r, "num_logprobs", k), "logprobs"),
        (5, lambda r, k: setattr(r, "num_prompt_logprobs", k), "prompt_logprobs"),
        (64, lambda r, k: setattr(r, "cache_salt", bytes(k)), "cache_salt"),
        (300, bias, "logit_bias"),
        (1024, lambda r, k: r.sampling.allowed_token_ids.extend([1] * k), "allowed_token_ids"),
        (128, ban, "bad_words"),
        (66, lambda r, k: r.bad_words.add(ids=[1] * k), "bad_words"),
    ],
)
def test_a_request_has_its_limit(
    limit: int, change: Callable[[SubmitRequest, int], object], field: str
) -> None:
    for count in (limit - 1, limit, limit + 1):
        scheduler, submit = Scheduler(config()), request()
        change(submit, count)
        if count <= limit:
            scheduler.submit(submit, 0)
            continue
        with pytest.raises(InvalidArgument, match=field) as refusal:
            scheduler.submit(submit, 0)
        assert refusal.value.field == field


def test_so_many_requests_wait() -> None:
    scheduler = Scheduler(config(max_num_queued_requests=3))
    for key in range(3):
        scheduler.submit(request(key), 0)
    with pytest.raises(Overloaded, match="3 requests are queued"):
        scheduler.submit(request(3), 0)


@pytest.mark.parametrize(("num_tokens", "fits"), [(5, True), (6, True), (7, False)])
def test_so_many_prompt_tokens_wait(num_tokens: int, fits: bool) -> None:
    scheduler = Scheduler(config(max_num_queued_tokens=10))
    scheduler.submit(request(0, 4), 0)
    if fits:
        scheduler.submit(request(1, num_tokens), 0)
        return
    with pytest.raises(Overloaded, match="holds 4 prompt tokens and at most 10"):
        scheduler.submit(request(1, num_tokens), 0)
