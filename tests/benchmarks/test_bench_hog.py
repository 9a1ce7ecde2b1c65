"""benchmarks.bench_hog: the other process runs in its turns only, and prompts never repeat."""

from collections.abc import Sequence
from typing import cast

import psutil

from benchmarks.bench_hog import measure
from benchmarks.peers.engines import DrivenEngine
from benchmarks.peers.measurement import Run
from benchmarks.peers.workloads import OfflineWorkload, Request, Workload

WORKLOAD = OfflineWorkload(name="W", num_requests=2, input_len=4, output_len=5)


class FakeEngine:
    """As slow as there are other processes beside it."""

    def __init__(self) -> None:
        self.prompts: list[tuple[int, ...]] = []

    def run(self, workload: Workload, requests: Sequence[Request], seed: int) -> Run:
        self.prompts += [tuple(request.prompt_token_ids) for request in requests]
        seconds = 1.0 + len(psutil.Process().children())
        return Run(duration_s=seconds, num_input_tokens=8, num_output_tokens=10)


def test_turns_go_alone_with_with_alone() -> None:
    engine = FakeEngine()
    speeds = measure(cast(DrivenEngine, engine), WORKLOAD, rounds=2, core=0)
    assert speeds == {"alone": [10.0] * 4, "with hog": [5.0] * 4}
    assert len(set(engine.prompts)) == len(engine.prompts) == 2 * (1 + 8)
    assert not psutil.Process().children()
