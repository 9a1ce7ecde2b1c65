"""octavo.health over real sockets: one exit status for ready, another for all else."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from octavo import health
from octavo.grpc_server import grpc_server
from tests.end_to_end.cluster import free_port
from tests.octavo.http_server import QuietHandler, serving


@contextmanager
def http_server(status: int) -> Iterator[str]:
    """A server that answers everything with the status; yields its address."""

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self.answer(status)

    with serving(Handler) as url:
        yield f"{url}/ready"


def test_http_status_200_is_ready() -> None:
    with http_server(200) as address:
        assert health.main(address) == 0


def test_a_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with http_server(200) as address:
        assert health.main(address) == 0


def test_another_status_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with http_server(503) as address:
        assert health.main(address) == 1
    assert capsys.readouterr().err == f"octavo: {address} is not ready: status 503\n"


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_nobody_there_is_told(scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    assert health.main(address) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"octavo: {address} is not ready: ") and error.count("\n") == 1


@pytest.mark.parametrize("address", ["http://", "http://127.0.0.1:port/", "http://[", "nonsense:x"])
def test_an_address_that_is_none_is_not_ready(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert health.main(address) == 1
    assert capsys.readouterr().err.startswith(f"octavo: {address} is not ready: ")


async def test_a_grpc_service_is_ready_while_it_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with grpc_server(address, {}, grace_s=0) as process_health:
        assert await asyncio.to_thread(health.main, address) == 1
        assert capsys.readouterr().err == f"octavo: {address} is not ready: NOT_SERVING\n"
        await process_health.set_serving(True)
        assert await asyncio.to_thread(health.main, address) == 0
