"""The threads of the kernels: children of a fork, several callers, and which cores they are on."""

import ctypes
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from octavo.kernels.linear import linear, pack_weight
from octavo.kernels.threads import set_num_threads

_CORES_OF_THREADS = """
import os, sys, time, torch
from pathlib import Path
from octavo.kernels.linear import linear, pack_weight
from octavo.kernels.threads import set_num_threads
set_num_threads(int(sys.argv[1]))
x, packed = torch.randn(64, 512), pack_weight(torch.randn(4096, 512))
before = set(os.listdir("/proc/self/task"))
linear(x, packed)
for thread in set(os.listdir("/proc/self/task")) - before:
    # A thread chooses its core when it begins, and sleeps when there is nothing to do any more.
    while Path(f"/proc/self/task/{thread}/stat").read_text().rsplit(") ")[1][0] != "S":
        time.sleep(0.001)
    print(len(os.sched_getaffinity(int(thread))), *os.sched_getaffinity(int(thread)))
"""

_CALLER_ON_A_TAKEN_CORE = """
import os, torch
from octavo.kernels.linear import linear, pack_weight
from octavo.kernels.threads import set_num_threads
allowed = os.sched_getaffinity(0)
set_num_threads(len(allowed))
x, packed = torch.randn(8, 64), pack_weight(torch.randn(1024, 64))
linear(x, packed)
os.sched_setaffinity(0, {max(allowed)})
os.sched_setaffinity(0, allowed)
linear(x, packed)
print(os.sched_getaffinity(0) == allowed)
"""

_WITHOUT_THREADS = """
import resource, torch
from pathlib import Path
from octavo.kernels.linear import linear, pack_weight
from octavo.kernels.threads import set_num_threads
x, packed = torch.randn(8, 64), pack_weight(torch.randn(1024, 64))
set_num_threads(1)
alone = linear(x, packed)
set_num_threads(8)
num_pages = int(Path("/proc/self/statm").read_text().split()[0])
# The stack of another thread takes more.
limit = num_pages * resource.getpagesize() + (3 << 19)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
print(torch.equal(linear(x, packed), alone))
"""


def product(num_threads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, the weight and x times it, which so many threads have computed."""
    set_num_threads(num_threads)
    x, weight = torch.randn(20, 512), torch.randn(1000, 512)
    return x, weight, linear(x, pack_weight(weight))


def test_a_child_of_a_fork_has_threads_of_its_own(cpu: ctypes.CDLL) -> None:
    x, weight, expected = product(num_threads=3)
    packed, whole = pack_weight(weight), expected.numpy().tobytes()
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        # Only our own code, and nothing large: the threads of torch's operations are gone, and it
        # would wait for them.
        os._exit(linear(x, packed).numpy().tobytes() != whole)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert linear(x, packed).numpy().tobytes() == whole


def test_several_callers_at_once_get_what_each_gets_alone(cpu: ctypes.CDLL) -> None:
    cases = [product(num_threads=3) for _ in range(4)]

    def is_right(case: tuple[Tensor, Tensor, Tensor]) -> bool:
        set_num_threads(3)
        x, weight, expected = case
        packed = pack_weight(weight)
        return all(torch.equal(linear(x, packed), expected) for _ in range(50))

    with ThreadPoolExecutor(len(cases)) as callers:
        assert all(callers.map(is_right, cases))


def cores_of_threads(num_threads: int) -> list[list[int]]:
    """Return the cores that each thread but the caller's may run on, in a process of its own."""
    command = [sys.executable, "-c", _CORES_OF_THREADS, str(num_threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return [[*map(int, line.split()[1:])] for line in done.stdout.splitlines()]


def test_threads_have_a_core_each_where_there_are_as_many_as_cores(cpu: ctypes.CDLL) -> None:
    num_cores = len(os.sched_getaffinity(0))
    cores = cores_of_threads(num_cores)
    assert len(cores) == num_cores - 1
    assert len({tuple(each) for each in cores}) == num_cores - 1
    assert all(len(each) == 1 for each in cores)


def test_fewer_threads_than_cores_may_go_where_they_like(cpu: ctypes.CDLL) -> None:
    num_cores = len(os.sched_getaffinity(0))
    if num_cores < 3:
        pytest.skip("two threads are as many as there are cores")
    assert all(len(each) == num_cores for each in cores_of_threads(2))


def test_a_caller_that_is_moved_off_the_core_of_a_thread_may_still_go_anywhere(
    cpu: ctypes.CDLL,
) -> None:
    command = [sys.executable, "-c", _CALLER_ON_A_TAKEN_CORE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True\n"


def test_where_the_system_gives_no_threads_the_caller_does_all_the_work(cpu: ctypes.CDLL) -> None:
    command = [sys.executable, "-c", _WITHOUT_THREADS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
