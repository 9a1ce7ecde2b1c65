"""benchmarks.peers.prefix_cost: both engines get the same prompts, in each pass others."""

from collections.abc import Sequence

import pytest

from benchmarks.peers.measurement import Run, WrongRun
from benchmarks.peers.prefix_cost import measure
from benchmarks.peers.workloads import OfflineWorkload, Request, Workload

WORKLOAD = OfflineWorkload(name="W", num_requests=2, input_len=4, output_len=5)


class FakeEngine:
    """Takes `duration_s` for each turn, and finds `num_cached_tokens` of the prompts."""

    warms_itself = False

    def __init__(self, duration_s: float, num_cached_tokens: int = 0) -> None:
        self.prompts: list[list[int]] = []
        self._duration_s = duration_s
        self._num_cached_tokens = num_cached_tokens

    def start(self) -> None:
        """Do nothing."""

    def run(self, workload: Workload, requests: Sequence[Request], seed: int) -> Run:
        self.prompts += [request.prompt_token_ids for request in requests]
        return Run(
            duration_s=self._duration_s,
            num_input_tokens=8,
            num_output_tokens=10,
            num_cached_tokens=self._num_cached_tokens,
        )

    def stop(self) -> None:
        """Do nothing."""


def test_passes_have_the_same_prompts_for_both_and_never_again() -> None:
    engines = {"with": FakeEngine(1.25), "without": FakeEngine(1.0)}
    assert measure(engines, WORKLOAD, rounds=2) == [0.8] * 4
    assert engines["with"].prompts == engines["without"].prompts
    prompts = {tuple(prompt) for prompt in engines["with"].prompts}
    assert len(prompts) == len(engines["with"].prompts) == 2 * (2 + 4)


def test_a_hit_is_no_result() -> None:
    engines = {"with": FakeEngine(1.0, num_cached_tokens=4), "without": FakeEngine(1.0)}
    with pytest.raises(WrongRun, match="4 prompt tokens were cached"):
        measure(engines, WORKLOAD, rounds=1)
