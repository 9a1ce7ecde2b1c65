"""The gateway process: listens on HTTP, connects to the router, runs until told to stop."""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import cyclopts
import uvicorn
from starlette.types import ASGIApp

from octavo.run import stop_requested
from octavo.startup import StartupError, StartupReport, run_service

from .http_protocol import LimitedHttpProtocol
from .in_flight import InFlight
from .limits import KEEP_ALIVE_S
from .metrics import GatewayMetrics
from .openai_api import create_app
from .router_client import RouterClient
from .settings import GatewaySettings

_MAX_PORT = 65535
_BACKLOG = 2048
_CLOSE_S = 1
"""How long a connection may take to send the end of an answer, once all generations are over."""


def main(
    settings: Annotated[GatewaySettings, cyclopts.Parameter(name="*")] = GatewaySettings(),
) -> None:
    """Run the REST gateway: HTTP in front, a router behind."""
    run_service(settings, serve, use_uvloop=True)


async def serve(settings: GatewaySettings, report: StartupReport) -> None:
    """Run the gateway until SIGTERM; then drain it."""
    stop = asyncio.create_task(stop_requested())
    in_flight = InFlight()
    async with RouterClient(settings.router) as router:
        app = create_app(router, in_flight, GatewayMetrics(), settings.api_key)
        with listen(settings.host, settings.port) as listener:
            async with http_server(app, listener):
                url = _url(listener)
                report.stage(f"listening on {url}")
                connected = asyncio.create_task(router.wait_connected())
                await asyncio.wait({stop, connected}, return_when=asyncio.FIRST_COMPLETED)
                if connected.done():
                    report.stage(f"connected to the router at {settings.router}")
                    report.ready(url)
                connected.cancel()
                await stop
                # Still listening: /ready says 503 while the running streams end.
                await in_flight.drain(settings.drain_timeout_s)


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a bound socket; raises StartupError naming what is wrong with host or port."""
    if not 0 <= port <= _MAX_PORT:
        raise StartupError(f"--port is {port}, but ports are 0 to {_MAX_PORT}.")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise StartupError(f"Host {host} is unknown; give another with --host.") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno == errno.EADDRINUSE:
            reason = "another process uses it"
        raise StartupError(
            f"Cannot listen on port {port} of {host}: {reason}. Choose another with --port."
        ) from error
    with listener:
        yield listener


@contextlib.asynccontextmanager
async def http_server(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve the application on the socket until the block is left."""
    config = uvicorn.Config(
        app,
        http=LimitedHttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSE_S,
    )
    config.load()
    server = uvicorn.Server(config)
    # The steps of Server.serve, without its signal handlers: signals are octavo.run's.
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    main_loop = asyncio.create_task(server.main_loop())
    try:
        yield
    finally:
        main_loop.cancel()
        await server.shutdown([listener])


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
