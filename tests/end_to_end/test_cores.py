"""The worker's step loop has a core to itself, as far as threads of the same cluster go."""

import os

import pytest

from octavo.cluster import FLAGS
from tests.end_to_end.cluster import Cluster

pytestmark = pytest.mark.slow


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="wants two cores")
def test_no_thread_but_the_step_loop_s_may_run_on_its_core(cluster: Cluster) -> None:
    core = min(os.sched_getaffinity(0))
    processes = [cluster.process_of(name) for name in FLAGS]
    threads = [thread.id for process in processes for thread in process.threads()]
    allowed = {thread: os.sched_getaffinity(thread) for thread in threads}
    step_loop = cluster.process_of("worker").pid
    assert allowed[step_loop] == {core}
    assert [thread for thread in threads if core in allowed[thread]] == [step_loop]
