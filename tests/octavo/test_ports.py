"""octavo.ports: a port that cannot be had is named together with the flag that mends it."""

import socket

import pytest

from octavo.ports import check_port_is_free, join_host_port
from octavo.startup import StartupError


def test_a_port_in_use_names_the_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=f"port {port} on 127.0.0.1 is in use.*--grpc-port"):
            check_port_is_free("127.0.0.1", port, "--grpc-port")
    check_port_is_free("127.0.0.1", port, "--grpc-port")


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_names_the_flag(port: int) -> None:
    with pytest.raises(StartupError, match=f"--grpc-port is {port}, but ports are 0 to 65535"):
        check_port_is_free("127.0.0.1", port, "--grpc-port")


@pytest.mark.parametrize("host", ["192.0.2.1", "not a host"])
def test_a_wrong_host_names_the_flag(host: str) -> None:
    with pytest.raises(StartupError, match="--host"):
        check_port_is_free(host, 8000, "--port")


def test_an_ipv6_address_gets_brackets() -> None:
    assert join_host_port("::1", 80) == "[::1]:80"
    assert join_host_port("127.0.0.1", 80) == "127.0.0.1:80"
