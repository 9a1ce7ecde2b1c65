"""Clusters for the clients that others wrote."""

import fcntl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.end_to_end.cluster import Cluster, running_cluster

FOLDER = Path(__file__).parent


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The demo model; ends with this folder's tests."""
    log_path = tmp_path_factory.mktemp("clients") / "serve.log"
    with running_cluster(log_path, "demo") as cluster:
        yield cluster


@pytest.fixture(scope="package")
def guarded_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A key, room for one request, and one more that waits; outputs that do not end by themselves.

    The mock needs half a minute for the longest of them: until a test closes it, it runs.
    """
    log_path = tmp_path_factory.mktemp("guarded") / "serve.log"
    limits = ["--max-num-seqs", "1", "--max-num-queued-requests", "1", "--max-model-len", "100000"]
    with running_cluster(log_path, "demo", ["--mock", "--api-key", "secret", *limits]) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def client(cluster: Cluster) -> Iterator[openai.OpenAI]:
    """A client that refuses answers which are not as its types say."""
    with openai.OpenAI(
        base_url=f"{cluster.base_url}/v1",
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture(scope="package")
def node_modules() -> None:
    """What package-lock.json names, installed once."""
    lock, installed = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            subprocess.run(["npm", "ci"], cwd=FOLDER, check=True, timeout=300)
