"""Two hundred streams at a time while clients vanish: nothing leaks, no error is logged."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.cluster import Cluster, running_cluster

pytestmark = pytest.mark.slow

NUM_PROCESSES, STREAMS_EACH = 5, 40
# Of each process that is killed, how many streams have ended before.
ENDED_BEFORE_KILL = (1, 10, 20, 30)
CLIENTS = Path(__file__).with_name("impatient_clients.py")


def start_clients(cluster: Cluster, seed: int) -> "subprocess.Popen[bytes]":
    arguments = [cluster.base_url, cluster.grpc_address, cluster.model]
    numbers = [str(STREAMS_EACH), str(seed)]
    return subprocess.Popen(
        [sys.executable, str(CLIENTS), *arguments, *numbers], stdout=subprocess.PIPE
    )


def test_vanished_clients_leave_nothing_behind(tmp_path: Path, demo_model: Path) -> None:
    with running_cluster(tmp_path / "serve.log", "demo") as cluster:
        children = cluster.children()
        outcomes = run_clients(cluster)
        cluster.wait_until_idle()
        assert cluster.metric("octavo_scheduler_free_blocks") == cluster.metric(
            "octavo_scheduler_blocks"
        )
        assert cluster.stop() == 0
    assert not [
        child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    ]
    assert [error for outcome in outcomes for error in outcome["errors"]] == []
    completed = sum(outcome["completed"] for outcome in outcomes)
    dropped = sum(outcome["dropped"] for outcome in outcomes)
    assert completed + dropped == NUM_PROCESSES * STREAMS_EACH
    assert completed > 100 and dropped > 40
    log = cluster.log.lower()
    assert "error" not in log and "traceback" not in log and "exception" not in log, cluster.log


def run_clients(cluster: Cluster) -> list[dict[str, Any]]:
    """Run all client processes; kill some with SIGKILL half-way and put others in their place."""
    clients = [start_clients(cluster, seed) for seed in range(NUM_PROCESSES)]
    try:
        for number, num_ended in enumerate(ENDED_BEFORE_KILL):
            victim = clients.pop(0)
            assert victim.stdout is not None
            for _ in range(num_ended):
                assert victim.stdout.readline() == b"ended\n"
            victim.kill()
            victim.communicate()
            clients.append(start_clients(cluster, NUM_PROCESSES + number))
        return [json.loads(client.communicate()[0].splitlines()[-1]) for client in clients]
    finally:
        for client in clients:
            with contextlib.suppress(ProcessLookupError):
                client.kill()
