"""The worker's step loop has a core to itself, as far as threads of the same cluster go."""

import os

import pytest

from octavo.cluster import FLAGS
from octavo.cores import step_loop_core
from tests.end_to_end.cluster import Cluster

pytestmark = pytest.mark.slow

CORE = step_loop_core("auto", None)


@pytest.mark.skipif(CORE is None, reason="wants two cores and no GPU")
def test_no_thread_but_the_step_loop_s_may_run_on_its_core(cluster: Cluster) -> None:
    processes = [cluster.process_of(name) for name in FLAGS]
    threads = [thread.id for process in processes for thread in process.threads()]
    allowed = {thread: os.sched_getaffinity(thread) for thread in threads}
    step_loop = cluster.process_of("worker").pid
    assert allowed[step_loop] == {CORE}
    assert [thread for thread in threads if CORE in allowed[thread]] == [step_loop]
