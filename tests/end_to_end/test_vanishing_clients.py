"""Two hundred streams for a minute while clients vanish: nothing leaks, no error is logged."""

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.end_to_end.cluster import Cluster, running_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUM_PROCESSES, STREAMS_EACH = 10, 20
SECONDS = 60
KILLED_PROCESSES = 4
CLIENTS = Path(__file__).with_name("impatient_clients.py")


def start_clients(cluster: Cluster, seed: int, seconds: float) -> "subprocess.Popen[bytes]":
    arguments = [cluster.base_url, cluster.grpc_address, cluster.model]
    numbers = [str(STREAMS_EACH), str(seconds), str(seed)]
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
    assert sum(outcome["completed"] for outcome in outcomes) > 100
    assert sum(outcome["dropped"] for outcome in outcomes) > 50
    log = cluster.log.lower()
    assert "error" not in log and "traceback" not in log and "exception" not in log, cluster.log


def run_clients(cluster: Cluster) -> list[dict[str, Any]]:
    """Run all client processes; kill some with SIGKILL half-way and put others in their place."""
    random_source = random.Random(0)
    start = time.monotonic()
    clients = [start_clients(cluster, seed, SECONDS) for seed in range(NUM_PROCESSES)]
    try:
        for number in range(KILLED_PROCESSES):
            wake_at = start + SECONDS * (number + random_source.random()) / KILLED_PROCESSES
            time.sleep(max(0.0, wake_at - time.monotonic()))
            victim = clients.pop(0)
            victim.kill()
            victim.communicate()
            rest = max(1.0, SECONDS - (time.monotonic() - start))
            clients.append(start_clients(cluster, NUM_PROCESSES + number, rest))
        return [json.loads(client.communicate(timeout=SECONDS * 3)[0]) for client in clients]
    finally:
        for client in clients:
            with contextlib.suppress(ProcessLookupError):
                client.kill()
