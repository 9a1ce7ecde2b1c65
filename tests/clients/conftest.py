"""A cluster for the clients that are not Python."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.cluster import Cluster, running_cluster


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The demo model; ends with this folder's tests."""
    log_path = tmp_path_factory.mktemp("clients") / "serve.log"
    with running_cluster(log_path, "demo") as cluster:
        yield cluster
