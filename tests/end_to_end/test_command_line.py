"""The commands that talk to a server, as a user starts them, against the whole cluster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.cluster import Cluster

pytestmark = pytest.mark.slow


def octavo(*arguments: str, typed: str = "") -> str:
    """Run `octavo ARGUMENTS`; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "octavo.cli", *arguments],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chat_answers_each_line(cluster: Cluster) -> None:
    flags = ("--url", cluster.base_url, "--temperature", "0", "--max-tokens", "20")
    typed = "What is the capital of France?\n/reset\nWhat is the capital of France?\n"
    answers = octavo("chat", *flags, typed=typed).splitlines()
    assert "Paris" in answers[0]
    assert answers[: len(answers) // 2] == answers[len(answers) // 2 :]


def test_complete_continues_the_text(cluster: Cluster) -> None:
    flags = ("--url", cluster.base_url, "--temperature", "0", "--max-tokens", "4")
    assert "Paris" in octavo("complete", "The capital of France is", *flags)


def test_bench_serve_counts_every_token(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    flags = ("--num-prompts", "5", "--input-len", "16", "--output-len", "8")
    octavo("bench", "serve", "--url", cluster.base_url, *flags, "--output-json", str(path))
    results = json.loads(path.read_text())
    assert (results["input_tokens"], results["output_tokens"]) == (80, 40)
    assert results["ttft_ms"]["p50"] > 0 and results["tpot_ms"]["p50"] > 0
