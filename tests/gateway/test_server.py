"""The gateway process: how it starts, why it does not, and how it stops."""

import asyncio
import json
import os
import signal
from typing import Any

import httpx
import pytest

from octavo.gateway.server import listen, serve
from octavo.gateway.settings import GatewaySettings
from octavo.startup import StartupError, StartupReport
from tests.gateway.fake_router import MODEL, FakeRouter, answer
from tests.gateway.sse import chunks


def test_a_port_in_use_is_named_with_its_flag() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError) as error, listen("127.0.0.1", port):
            raise AssertionError("not reached")
    assert str(error.value) == (
        f"Cannot listen on port {port} of 127.0.0.1: another process uses it."
        " Choose another with --port."
    )


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("no host", 0, "Host no host is unknown; give another with --host."),
        ("127.0.0.1", 70000, "--port is 70000, but ports are 0 to 65535."),
    ],
)
def test_an_address_that_cannot_be_is_named_with_its_flag(
    host: str, port: int, message: str
) -> None:
    with pytest.raises(StartupError) as error, listen(host, port):
        raise AssertionError("not reached")
    assert str(error.value) == message


class Pipe:
    """The reading end of a start-up report."""

    def __init__(self) -> None:
        self._read_fd, self.write_fd = os.pipe()
        self._file = os.fdopen(self._read_fd)

    async def next(self) -> dict[str, Any]:
        """Return the next message."""
        line = await asyncio.to_thread(self._file.readline)
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        self._file.close()


async def test_it_is_ready_with_the_router_and_finishes_its_streams_on_sigterm(
    router_address: str,
) -> None:
    go_on = asyncio.Event()

    async def wait_then_answer(request: Any) -> Any:
        await go_on.wait()
        async for event in answer(request):
            yield event

    pipe = Pipe()
    settings = GatewaySettings(port=0, router=router_address, drain_timeout_s=30)
    running = asyncio.create_task(serve(settings, StartupReport(pipe.write_fd)))
    stage = (await pipe.next())["stage"]
    url = stage.removeprefix("listening on ")
    async with httpx.AsyncClient(base_url=url) as http:
        # It listens before there is a router, and says so.
        assert (await http.get("/ready")).status_code == 503
        router = FakeRouter()
        router.script = wait_then_answer
        async with router.serving(router_address):
            assert (await pipe.next())["stage"].startswith("connected to the router")
            assert (await pipe.next()) == {"ready": url}
            assert (await http.get("/ready")).status_code == 200
            body = {"model": MODEL, "messages": [], "stream": True}
            stream = asyncio.create_task(http.post("/v1/chat/completions", json=body))
            await router.arrived.get()
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while (await http.get("/ready")).status_code == 200:
                    pass
            assert not running.done()
            go_on.set()
            await running
            assert chunks((await stream).content)[-1]["choices"][0]["finish_reason"] == "stop"
        with pytest.raises(httpx.ConnectError):
            await http.get("/health")
    pipe.close()


async def test_it_stops_on_sigterm_while_it_waits_for_the_router(router_address: str) -> None:
    pipe = Pipe()
    settings = GatewaySettings(port=0, router=router_address)
    running = asyncio.create_task(serve(settings, StartupReport(pipe.write_fd)))
    assert (await pipe.next())["stage"].startswith("listening on http://127.0.0.1:")
    signal.raise_signal(signal.SIGTERM)
    await running
    os.close(pipe.write_fd)
    pipe.close()
