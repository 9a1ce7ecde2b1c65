"""A worker that lives and does not get on is replaced; clients see a pause."""

import ctypes
import json
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.end_to_end.cluster import START_TIMEOUT_S, Cluster, running_cluster

pytestmark = pytest.mark.slow

BODY = {"model": "demo", "prompt": "Once upon a time", "temperature": 0, "ignore_eos": True}
STEP_TIMEOUT_S = 3

_PTRACE_CONT = 7
_PTRACE_GETREGS = 12
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_WALL = 0x40000000
# Of user_regs_struct.
_NUM_REGISTERS = 27
_RIP = 16
_LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Cluster]:
    log_path = tmp_path_factory.mktemp("hung") / "serve.log"
    flags = ["--dtype", "float32", "--step-timeout-s", str(STEP_TIMEOUT_S)]
    with running_cluster(log_path, "demo", flags) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(own_cluster: Cluster) -> str:
    """The text of a stream whose worker is left alone."""
    return streamed(own_cluster, lambda: None)


def stop_main_thread(process: psutil.Process) -> None:
    """Stop the thread that runs the steps within a kernel, as one that never ends would be.

    All others go on: a kernel holds none of Python's locks.
    """
    if platform.machine() != "x86_64":
        pytest.skip("where a thread is, is read from a register of x86-64")
    _ptrace(_PTRACE_SEIZE, process.pid)
    while True:
        _ptrace(_PTRACE_INTERRUPT, process.pid)
        os.waitpid(process.pid, _WALL)
        if is_in_kernel(process):
            break
        _ptrace(_PTRACE_CONT, process.pid)

    def see_it_end() -> None:
        """Whoever traces a process hears of its end first, and its parent only then."""
        os.waitpid(process.pid, _WALL)

    threading.Thread(target=see_it_end, daemon=True).start()


def is_in_kernel(process: psutil.Process) -> bool:
    """Whether the next instruction of a stopped main thread is one of the C++ kernels'."""
    registers = (ctypes.c_uint64 * _NUM_REGISTERS)()
    _ptrace(_PTRACE_GETREGS, process.pid, registers)
    for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
        begin, end = (int(address, 16) for address in line.split()[0].split("-"))
        if begin <= registers[_RIP] < end:
            return "/kernels-" in line
    return False


def _ptrace(request: int, pid: int, data: object = None) -> None:
    if _LIBC.ptrace(request, pid, None, data):
        pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")


def streamed(cluster: Cluster, meanwhile: Callable[[], None]) -> str:
    """Return the text of a stream; `meanwhile` is called in the midst of it."""
    texts: list[str] = []
    with httpx.stream(
        "POST",
        cluster.base_url + "/v1/completions",
        json=BODY | {"max_tokens": 100, "stream": True, "return_token_ids": True},
        timeout=START_TIMEOUT_S,
    ) as response:
        for line in filter(None, response.iter_lines()):
            if line == "data: [DONE]":
                return "".join(texts)
            texts.append(json.loads(line.removeprefix("data: "))["choices"][0]["text"])
            if len(texts) == 10:
                meanwhile()
    raise AssertionError("the stream was cut")


def wait_for_line(cluster: Cluster, words: str, *, after: int) -> None:
    """Return when the log has the words after its first `after` characters."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while words not in cluster.log[after:]:
        assert time.monotonic() < deadline, cluster.log[after:]
        time.sleep(0.05)


def test_streams_go_on_when_a_step_hangs(own_cluster: Cluster, undisturbed: str) -> None:
    hung, begun = own_cluster.process_of("worker"), len(own_cluster.log)
    assert streamed(own_cluster, lambda: stop_main_thread(hung)) == undisturbed
    assert not hung.is_running()
    assert f"(--step-timeout-s {STEP_TIMEOUT_S}); last seen forward" in own_cluster.log[begun:]


def test_streams_go_on_when_a_worker_that_stood_still_goes_on(
    own_cluster: Cluster, undisturbed: str
) -> None:
    worker, begun = own_cluster.process_of("worker"), len(own_cluster.log)

    def stand_still() -> None:
        worker.suspend()
        wait_for_line(own_cluster, "silent for 5 s", after=begun)
        worker.resume()

    assert streamed(own_cluster, stand_still) == undisturbed
    # It was given up, and another has taken its place.
    assert not worker.is_running()


def test_streams_go_on_when_a_worker_stands_still_for_good(
    own_cluster: Cluster, undisturbed: str
) -> None:
    worker, begun = own_cluster.process_of("worker"), len(own_cluster.log)
    assert streamed(own_cluster, worker.suspend) == undisturbed
    assert not worker.is_running()
    assert "was stopped by a signal, does not go on, and is killed" in own_cluster.log[begun:]


def test_a_request_whose_steps_hang_twice_is_told(tmp_path: Path, demo_model: Path) -> None:
    hangs = "worker.before_step=delay:3600"
    # The last worker hangs when the cluster ends, and is not waited for until it is done.
    flags = ["--mock", "--step-timeout-s", "1", "--drain-timeout-s", "0.1", "--failpoints", hangs]
    with running_cluster(tmp_path / "serve.log", "demo", flags) as cluster:
        url = cluster.base_url + "/v1/completions"
        answer = httpx.post(url, json=BODY, timeout=START_TIMEOUT_S)
        assert answer.status_code == 500, answer.text
        assert "failed twice" in answer.json()["error"]["message"]
        assert len(re.findall("lost a worker.*stuck for", cluster.log)) == 2
