"""benchmarks.peers.run: what is chosen, what it will take, and a busy machine."""

import os
from pathlib import Path

import psutil
import pytest

from benchmarks.peers.comparisons import TABLE, Comparison, start_s, turn_s
from benchmarks.peers.run import choose, main, print_plan
from benchmarks.peers.workloads import WORKLOADS


def test_without_names_it_is_the_table() -> None:
    assert choose(None, None, 1.0, None) == list(TABLE)


def test_engines_scale_and_rounds_replace_those_of_the_table() -> None:
    (chosen,) = choose(["W1"], ["octavo:int8", "vllm:w8a8"], 0.5, 1)
    assert chosen == Comparison(WORKLOADS["W1"].scaled(0.5), ("octavo:int8", "vllm:w8a8"), 1)
    assert chosen.pairs() == [("octavo:int8", "vllm:w8a8")]


def test_workloads_beyond_the_table_can_be_named() -> None:
    (chosen,) = choose(["W2"], None, 1.0, None)
    assert chosen.engines == ("octavo:bf16", "vllm:bf16")


def test_an_unknown_workload_is_told_with_those_there_are() -> None:
    with pytest.raises(SystemExit, match="no workload W0; there are W1, "):
        choose(["W0"], None, 1.0, None)


def test_the_plan_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(list(TABLE))
    lines = capsys.readouterr().out.splitlines()
    minutes = [float(line.split()[0]) for line in lines]
    assert len(lines) == len(TABLE) + 2
    assert sum(minutes[:-1]) == pytest.approx(minutes[-1], abs=0.1 * len(lines))


def test_more_work_takes_longer_and_servers_start_apart() -> None:
    w1 = WORKLOADS["W1"]
    assert turn_s(w1, "vllm:bf16") == pytest.approx(2 * turn_s(w1.scaled(0.5), "vllm:bf16"))
    offline = [
        Comparison(w1, ("octavo:bf16",), 1),
        Comparison(WORKLOADS["W3"], ("octavo:bf16",), 1),
    ]
    served = [*offline, Comparison(WORKLOADS["S1"], ("octavo:bf16",), 1)]
    assert start_s(offline) == start_s(offline[:1]) < start_s(served)


def test_a_busy_machine_is_not_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 75.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert main(output_json=tmp_path / "peers.json") == 1
    assert "others keep 3.0 cores busy" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
