"""The processes of compose.yaml, with its own commands, networks and secrets, serve a chat."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from octavo import keys
from tests.deploy.compose_file import compose, services
from tests.deploy.composed import Composed, composed
from tests.deploy.network_lab import Host, network_lab

pytestmark = pytest.mark.slow

_CONNECT = (
    "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"
)


@dataclass
class Deployment:
    """The running services, and a stranger beside them."""

    cluster: Composed
    outside: Host
    """A host on the network `edge` that is no service."""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("compose")
    assert keys.main(folder / "secrets") == 0
    with contextlib.ExitStack() as stack:
        try:
            lab = stack.enter_context(network_lab())
        except OSError as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        for network in compose()["networks"]:
            lab.add_network(network)
        cluster = stack.enter_context(composed(lab, services("cpu"), folder / "secrets", folder))
        outside = lab.add_host("outside", {"edge": ["outside"]})
        lab.write_names()
        cluster.up()
        yield Deployment(cluster, outside)
        assert set(cluster.down().values()) == {0}


def test_a_chat_goes_through_all_processes(deployment: Deployment) -> None:
    asked = "What is the capital of France?\n/exit\n"
    chat = ("octavo", "chat", "--url=http://gateway:8000", "--temperature=0", "--max-tokens=16")
    done = deployment.cluster.run(deployment.outside, *chat, text=asked)
    assert "Paris" in done.stdout, done.stdout + done.stderr


def test_the_routers_port_is_open_to_clients(deployment: Deployment) -> None:
    done = deployment.cluster.run(deployment.outside, "octavo", "health", "router:50051")
    assert done.returncode == 0, done.stderr


def test_scheduler_and_worker_can_be_reached_from_the_internal_network_only(
    deployment: Deployment,
) -> None:
    cluster = deployment.cluster
    for name in ("scheduler", "worker-cpu"):
        host = cluster.hosts[name]
        listening = cluster.run(host, "ss", "--no-header", "--listening", "--tcp", "--numeric")
        ports = re.findall(r"0\.0\.0\.0:(\d+) ", listening.stdout)
        assert ports
        for port in ports:
            connect = ("python", "-c", _CONNECT, host.addresses["internal"], port)
            assert cluster.run(cluster.hosts["router"], *connect).returncode == 0
            assert cluster.run(cluster.hosts["gateway"], *connect).returncode == 1
            assert cluster.run(deployment.outside, *connect).returncode == 1


def test_prometheus_would_find_its_targets(deployment: Deployment) -> None:
    cluster = deployment.cluster
    for name in ("scheduler:9101", "router:9102", "worker:9103"):
        done = cluster.run(cluster.hosts["router"], "octavo", "health", f"http://{name}/metrics")
        assert done.returncode == 0, done.stderr
