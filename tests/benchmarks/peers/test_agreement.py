"""benchmarks.peers.agreement: log-probabilities that differ too much end the measurement."""

from typing import Any, cast

import pytest

from benchmarks.peers.agreement import check_agreement
from benchmarks.peers.engines import DrivenEngine
from benchmarks.peers.measurement import WrongRun


class FakeDriver:
    """Answers every call with the same."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def call(self, operation: str, **arguments: Any) -> Any:
        return self._answer


def difference(kind: str, ours: list[float], theirs: list[float]) -> float:
    answer = [{"prompt": [1], "output": [2] * len(ours), "logprobs": ours}]
    engine, reference = FakeDriver(answer), FakeDriver(theirs)
    return check_agreement(kind, cast(DrivenEngine, engine), cast(DrivenEngine, reference))


def test_the_mean_difference_is_told() -> None:
    assert difference("bf16", [-1.0, -2.0], [-1.02, -1.98]) == pytest.approx(0.02)


@pytest.mark.parametrize("wrong", [-1.5, float("nan")])
def test_a_wrong_answer_is_no_result_however_fast(wrong: float) -> None:
    with pytest.raises(WrongRun, match="differ from transformers"):
        difference("bf16", [wrong], [-1.0])


def test_fewer_bits_are_given_more_room() -> None:
    assert difference("int4", [-1.3], [-1.0]) == pytest.approx(0.3)
    with pytest.raises(WrongRun):
        difference("int8", [-1.3], [-1.0])
