"""A gateway, served by uvicorn in the test's own loop, in front of a fake router."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace

import httpx
import openai
import pytest
import uvicorn.server

from octavo.gateway.in_flight import InFlight
from octavo.gateway.metrics import GatewayMetrics
from octavo.gateway.openai_api import create_app
from octavo.gateway.router_client import RouterClient
from octavo.gateway.server import http_server, listen
from tests.gateway.fake_router import FakeRouter


@dataclass
class Gateway:
    """A running gateway and ways to talk to it."""

    port: int
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI
    in_flight: InFlight


@pytest.fixture
async def router_address() -> AsyncIterator[str]:
    # Not tmp_path: a socket's path may have 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        yield f"unix:{folder}/router.sock"


@pytest.fixture
async def fake_router(router_address: str) -> AsyncIterator[FakeRouter]:
    router = FakeRouter()
    async with router.serving(router_address):
        yield router


@pytest.fixture
def api_keys() -> tuple[str, ...]:
    return ()


@pytest.fixture
def impatient_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let uvicorn look every 5 ms whether its connections have ended, not every 100 ms."""
    impatient = SimpleNamespace(
        **vars(asyncio) | {"sleep": lambda delay: asyncio.sleep(delay / 20)}
    )
    monkeypatch.setattr(uvicorn.server, "asyncio", impatient)


@pytest.fixture
async def gateway_alone(
    router_address: str, api_keys: tuple[str, ...], impatient_uvicorn: None
) -> AsyncIterator[Gateway]:
    """A gateway whose router does not run."""
    in_flight = InFlight()
    async with RouterClient(router_address) as router:
        app = create_app(router, in_flight, GatewayMetrics(), api_keys)
        with listen("127.0.0.1", 0) as listener:
            port = listener.getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            async with (
                http_server(app, listener),
                # Nothing is encrypted: each would read the machine's certificates, for 25 ms.
                httpx.AsyncClient(base_url=url, timeout=30, verify=False) as http,
                openai.DefaultAsyncHttpxClient(verify=False) as of_openai,
                openai.AsyncOpenAI(
                    base_url=f"{url}/v1", api_key="-", max_retries=0, http_client=of_openai
                ) as client,
            ):
                yield Gateway(port, http, client, in_flight)


@pytest.fixture
async def gateway(fake_router: FakeRouter, gateway_alone: Gateway) -> Gateway:
    return gateway_alone
