"""The router process: build the parts, run until told to stop."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Annotated, Any

import cyclopts

from octavo.api_keys import ApiKeys
from octavo.grpc_server import Health, grpc_server
from octavo.metrics_server import serve_metrics
from octavo.ports import check_port_is_free, join_host_port
from octavo.run import stop_requested
from octavo.startup import StartupError, StartupReport, run_service
from octavo.v1 import (
    inference_pb2_grpc,
    models_pb2_grpc,
    relay_pb2_grpc,
    tokenizer_pb2_grpc,
)

from .calls import CallInterceptor
from .engine import Engine
from .engine_catalog import EngineCatalog
from .loaded_models import LoadedModels
from .metrics import RouterMetrics
from .models_service import ModelsServicer
from .open_requests import OpenRequests
from .relay import Relays
from .relay_service import RelayServicer
from .scheduler_client import SchedulerClient
from .service import InferenceServicer
from .settings import RouterSettings
from .tokenizer_service import TokenizerServicer

_MAX_CONCURRENT_RPCS = 16_384

# What is left after the drain is cancelled; its status still has to go out.
_GRACE_S = 0.5


def main(settings: Annotated[RouterSettings, cyclopts.Parameter(name="*")]) -> None:
    """Run a router."""
    run_service(settings, serve)


async def serve(settings: RouterSettings, report: StartupReport) -> None:
    catalog = _catalog(settings)
    open_requests = OpenRequests()
    metrics = RouterMetrics(open_requests)
    api_keys = ApiKeys(settings.api_key)
    check_port_is_free(settings.host, settings.grpc_port, "--grpc-port")
    address = join_host_port(settings.host, settings.grpc_port)
    if settings.metrics_port:
        serve_metrics(metrics.registry, settings.metrics_host, settings.metrics_port)
    async with (
        _background(stop_requested()) as stop,
        _listening(
            address, catalog, open_requests, CallInterceptor(metrics, api_keys), metrics
        ) as health,
    ):
        report.stage(f"listening on {address}")

        async def on_change() -> None:
            is_serving = catalog.is_serving
            await health.set_serving(is_serving and not open_requests.is_draining)
            if is_serving:
                # The first time; after it nobody listens to the report any more.
                report.stage("attached to a scheduler, tokenizer read")
                report.ready(address)

        async with _background(catalog.run(on_change)) as attachment:
            await asyncio.wait((stop, attachment), return_when=asyncio.FIRST_COMPLETED)
            if attachment.done():
                # It ends by itself only with the reason why this router cannot serve.
                attachment.result()
            await health.set_serving(False)
            await open_requests.drain(settings.drain_timeout_s)
        # What is still open has ended with the attachment, and says so to its client.


def _catalog(settings: RouterSettings) -> EngineCatalog:
    models = LoadedModels(
        settings.chat_template, reads_generation_config=settings.generation_config == "auto"
    )
    # Each link is a router of its own to its scheduler: two addresses may lead to the same one.
    schedulers = [
        SchedulerClient(address, secrets.token_bytes(16))
        for address in dict.fromkeys(settings.scheduler)
    ]
    return EngineCatalog([Engine(scheduler, models) for scheduler in schedulers])


@contextlib.asynccontextmanager
async def _listening(
    address: str,
    catalog: EngineCatalog,
    open_requests: OpenRequests,
    interceptor: CallInterceptor,
    metrics: RouterMetrics,
) -> AsyncIterator[Health]:
    """Serve the router's services; raises StartupError if the address cannot be had."""
    relays = Relays()
    inference, relay = (
        InferenceServicer(catalog, open_requests, metrics, relays),
        RelayServicer(relays),
    )
    tokenizer, models = TokenizerServicer(catalog), ModelsServicer(catalog)
    services = {
        "octavo.v1.Inference": partial(
            inference_pb2_grpc.add_InferenceServicer_to_server, inference
        ),
        "octavo.v1.Relay": partial(relay_pb2_grpc.add_RelayServicer_to_server, relay),
        "octavo.v1.Tokenizer": partial(
            tokenizer_pb2_grpc.add_TokenizerServicer_to_server, tokenizer
        ),
        "octavo.v1.Models": partial(models_pb2_grpc.add_ModelsServicer_to_server, models),
    }
    async with contextlib.AsyncExitStack() as stack:
        server = grpc_server(
            address,
            services,
            grace_s=_GRACE_S,
            interceptors=[interceptor],
            max_concurrent_rpcs=_MAX_CONCURRENT_RPCS,
        )
        try:
            health = await stack.enter_async_context(server)
        except OSError as error:
            raise StartupError(f"{error} --grpc-port gives another port.") from error
        yield health
        # Left open, they would have the server wait for all of its grace.
        relays.end()


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run `work` beside the block, and cancel it at the block's end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
