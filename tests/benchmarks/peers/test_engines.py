"""benchmarks.peers.engines: a driver's process answers, is stopped between calls, and ends."""

import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.peers.engines import DrivenEngine, LlamaCppBatch, make_offline
from benchmarks.peers.installation import Installation
from benchmarks.peers.process_group import EngineFailed
from benchmarks.peers.workloads import OfflineWorkload

WORKLOAD = OfflineWorkload(name="W", num_requests=3, input_len=5, output_len=2)
DRIVER = """
import time
from benchmarks.peers.driver import Driver, read_requests, result

driver = Driver()
print("what an engine prints is no answer")

def generate(requests):
    outputs = [(prompt, [0] * length) for prompt, length in read_requests(requests)]
    return result(0.5, outputs, 0)

def fail():
    raise SystemExit("out of memory")

driver.serve({"generate": generate, "fail": fail})
"""


@pytest.fixture
def engine(tmp_path: Path) -> DrivenEngine:
    return DrivenEngine([sys.executable, "-c", DRIVER], {}, tmp_path)


def child_states() -> list[str]:
    return [child.status() for child in psutil.Process().children(recursive=True)]


def test_a_driver_answers_and_sleeps_between_its_turns(engine: DrivenEngine) -> None:
    engine.start()
    try:
        run = engine.run(WORKLOAD, WORKLOAD.requests(0), 0)
        assert (run.num_input_tokens, run.num_output_tokens, run.duration_s) == (15, 6, 0.5)
        assert psutil.STATUS_STOPPED in child_states()
    finally:
        engine.stop()
    assert not child_states()


def test_an_engine_that_ends_is_told_with_the_end_of_its_log(engine: DrivenEngine) -> None:
    engine.start()
    try:
        with pytest.raises(EngineFailed, match="out of memory"):
            engine.call("fail")
    finally:
        engine.stop()


def test_llama_batched_bench_is_asked_for_the_workload_and_its_counts_are_read(
    tmp_path: Path,
) -> None:
    program = tmp_path / "bench"
    program.write_text(
        '#!/bin/sh\necho "$@" >> "$0.log"\necho "loading"\n'
        'echo \'{"pp": 5, "tg": 2, "pl": 3, "t": 0.25}\'\n'
    )
    program.chmod(0o755)
    run = LlamaCppBatch(str(program), tmp_path / "m.gguf").run(WORKLOAD, WORKLOAD.requests(0), 0)
    assert (run.num_input_tokens, run.num_output_tokens, run.duration_s) == (15, 6, 0.25)
    asked = Path(f"{program}.log").read_text()
    assert "-npp 5 -ntg 2 -npl 3 -c 21" in asked


def test_llama_batched_bench_refuses_requests_of_several_lengths(tmp_path: Path) -> None:
    mixed = OfflineWorkload(name="W2", num_requests=9, input_len=50, output_len=50, sigma=1.0)
    with pytest.raises(EngineFailed, match="one length"):
        LlamaCppBatch("none", tmp_path).run(mixed, mixed.requests(0), 0)


@pytest.mark.parametrize("name", ["vllm:q4_0", "octavo:fp8", "ollama:bf16", "llama.cpp"])
def test_an_engine_there_is_not_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=name.partition(":")[0]):
        make_offline(name, Installation(tmp_path), tmp_path)


def test_a_peer_that_is_not_installed_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="vllm/bin/python is missing.*README.md"):
        make_offline("vllm:bf16", Installation(tmp_path), tmp_path)
