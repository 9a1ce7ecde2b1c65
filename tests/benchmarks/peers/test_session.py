"""benchmarks.peers.session: what fails is left out, everything else is measured and ended."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.peers import session
from benchmarks.peers.client import Client
from benchmarks.peers.comparisons import Comparison
from benchmarks.peers.installation import Installation
from benchmarks.peers.measurement import Run
from benchmarks.peers.process_group import EngineFailed
from benchmarks.peers.workloads import OfflineWorkload, Request, ServedWorkload, Workload

WORKLOAD = OfflineWorkload(name="W", num_requests=4, input_len=8, output_len=2)
SERVED = ServedWorkload(name="S", concurrency=2, num_requests=4, input_len=8, output_len=2)


class FakeEngine:
    """Makes all tokens but those that `lost_after` says."""

    warms_itself = False

    def __init__(self, log: list[str], name: str, lost_after: int | None = None) -> None:
        self._log = log
        self._name = name
        self._lost_after = lost_after
        self._num_runs = 0

    def start(self) -> None:
        if self._name == "absent":
            raise EngineFailed("not installed")
        self._log.append(f"start {self._name}")

    def run(self, workload: Workload, requests: Sequence[Request], seed: int) -> Run:
        self._log.append(f"{self._name} {seed}")
        lost = self._lost_after is not None and self._num_runs >= self._lost_after
        self._num_runs += 1
        expected = workload.num_requests * workload.output_len
        return Run(duration_s=1.0, num_input_tokens=0, num_output_tokens=expected - lost)

    def stop(self) -> None:
        self._log.append(f"stop {self._name}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    log: list[str] = []

    def make(
        name: str, peers: Installation, directory: Path, client: Client | None = None
    ) -> FakeEngine:
        return FakeEngine(log, name, 2 if name == "wrong" else None)

    monkeypatch.setattr(session, "make_offline", make)
    monkeypatch.setattr(session, "make_server", make)
    return log


def test_engines_are_warmed_then_take_turns_and_are_started_once(log: list[str]) -> None:
    with session.Session(Installation(Path()), 1.0) as it:
        runs = it.run(Comparison(WORKLOAD, ("a", "b"), 1))
        it.run(Comparison(WORKLOAD, ("b",), 1))
    assert log == [
        *["start a", "a -1", "start b", "b -1", "a 0", "b 0", "b 1", "a 1"],
        *["b 0", "b 1", "stop a", "stop b"],
    ]
    assert {name: len(each) for name, each in runs.items()} == {"a": 2, "b": 2}


def test_what_is_absent_or_wrong_is_left_out_and_told(log: list[str]) -> None:
    with session.Session(Installation(Path()), 1.0) as it:
        runs = it.run(Comparison(WORKLOAD, ("a", "absent", "wrong"), 2))
    assert list(runs) == ["a"]
    assert len(runs["a"]) == 4
    assert it.failures["absent"] == "not installed"
    assert "7 tokens instead of 8" in it.failures["W wrong"]


def test_offline_engines_are_ended_before_servers_start(log: list[str]) -> None:
    with session.Session(Installation(Path()), 1.0) as it:
        it.run(Comparison(WORKLOAD, ("a",), 1))
        it.run(Comparison(SERVED, ("a",), 1))
    assert log.index("stop a") < len(log) - 1 - log[::-1].index("start a")
