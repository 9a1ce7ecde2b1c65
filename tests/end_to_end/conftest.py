"""Clusters for the end-to-end tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Cluster]:
    """The demo model in bfloat16, shared by the tests that only talk to it."""
    log_path = tmp_path_factory.mktemp("cluster") / "serve.log"
    with running_cluster(log_path, "demo") as cluster:
        yield cluster
