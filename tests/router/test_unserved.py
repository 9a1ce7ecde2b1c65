"""What no scheduler does yet is refused, not ignored."""

from typing import Literal

import grpc
import pytest

from tests.router.conftest import Router
from tests.router.fake_scheduler import FakeScheduler
from tests.router.requests import failure, field_of, generate


@pytest.mark.parametrize("field", ["logprobs", "prompt_logprobs"])
async def test_it_is_refused_before_it_is_submitted(
    router: Router, scheduler: FakeScheduler, field: Literal["logprobs", "prompt_logprobs"]
) -> None:
    request = generate()
    setattr(request.options, field, 0)
    error = await failure(router.inference.Generate(request))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert field_of(error) == field
    assert scheduler.submitted.empty()
