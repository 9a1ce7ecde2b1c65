"""Time is counted for the work that was done, and for no other."""

import ctypes

import pytest
import torch

from octavo.kernels.linear import linear, pack_weight
from octavo.kernels.profile import seconds_by_part
from octavo.kernels.rms_norm import rms_norm


def test_time_goes_to_the_work_that_was_done(cpu: ctypes.CDLL) -> None:
    x, packed = torch.randn(64, 256), pack_weight(torch.randn(4096, 256))
    before = seconds_by_part()
    linear(x, packed)
    after_head = seconds_by_part()
    rms_norm(x, torch.ones(256), eps=1e-5)
    after_norm = seconds_by_part()
    changed = {part for part, seconds in after_head.items() if seconds > before[part]}
    assert changed == {"head"}
    changed = {part for part, seconds in after_norm.items() if seconds > after_head[part]}
    assert changed == {"norm"}


@pytest.mark.usefixtures("no_library")
def test_nothing_is_counted_without_a_compiler() -> None:
    assert set(seconds_by_part().values()) == {0.0}
