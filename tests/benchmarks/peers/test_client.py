"""benchmarks.peers.client: one process asks every server; one that ended is started again."""

import re
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from benchmarks.peers.client import Client
from benchmarks.peers.installation import Installation
from benchmarks.peers.process_group import EngineFailed
from benchmarks.peers.workloads import ServedWorkload

WORKLOAD = ServedWorkload(name="S", concurrency=2, num_requests=4, input_len=8, output_len=3)
# Instead of vLLM's python: ready, one answer a line, and the end at port 13.
PYTHON = """#!/bin/sh
echo "$@" >> "$0.starts"
echo null
while read -r call; do
    case "$call" in *'"http://localhost:13"'*) echo "refused" >&2; exit 1;; esac
    echo "$call" >> "$0.calls"
    echo '{"duration": 2.0, "total_input_tokens": 32, "total_output_tokens": 12,'\\
        '"mean_ttft_ms": 12.345, "completed": 4}'
done
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "vllm/bin/python"
    path.parent.mkdir(parents=True)
    path.write_text(PYTHON)
    path.chmod(0o755)
    (tmp_path / "models/bf16").mkdir(parents=True)
    return path


def test_one_process_asks_all_servers(python: Path, tmp_path: Path) -> None:
    client = Client(Installation(tmp_path), tmp_path)
    try:
        runs = [client.run(f"http://localhost:{port}", WORKLOAD, 0) for port in (1, 2)]
    finally:
        client.stop()
    assert not psutil.Process().children()
    assert {(run.duration_s, run.num_output_tokens) for run in runs} == {(2.0, 12)}
    assert runs[0].latencies_ms == {"mean_ttft_ms": 12.35}
    assert len(Path(f"{python}.starts").read_text().splitlines()) == 1
    first, second = Path(f"{python}.calls").read_text().splitlines()
    assert '"http://localhost:1"' in first and '"http://localhost:2"' in second
    assert '"--max-concurrency", "2"' in first and '"--ignore-eos"' in first


def test_prompts_are_the_same_for_all_servers_and_others_for_each_turn_and_workload(
    python: Path, tmp_path: Path
) -> None:
    other = replace(WORKLOAD, name="T")
    client = Client(Installation(tmp_path), tmp_path)
    try:
        for port, workload, seed in ((1, WORKLOAD, 0), (2, WORKLOAD, 0), (1, WORKLOAD, 1)):
            client.run(f"http://localhost:{port}", workload, seed)
        client.run("http://localhost:1", other, 0)
    finally:
        client.stop()
    calls = Path(f"{python}.calls").read_text()
    seeds = re.findall(r'"--seed", "(\d+)"', calls)
    assert seeds[0] == seeds[1] and len(seeds) == 4 and len(set(seeds)) == 3


def test_a_client_that_ended_is_told_and_started_again(python: Path, tmp_path: Path) -> None:
    client = Client(Installation(tmp_path), tmp_path)
    try:
        with pytest.raises(EngineFailed, match="refused"):
            client.run("http://localhost:13", WORKLOAD, 0)
        assert client.run("http://localhost:1", WORKLOAD, 1).duration_s == 2.0
    finally:
        client.stop()
    assert len(Path(f"{python}.starts").read_text().splitlines()) == 2
