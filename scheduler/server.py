"""The scheduler process: wait for the workers, then serve the routers until told to stop."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Annotated, Any

import cyclopts
import structlog

from octavo.grpc_server import Health, grpc_server
from octavo.metrics_server import process_registry, serve_metrics
from octavo.run import stop_requested
from octavo.startup import StartupError, StartupReport, run_service
from octavo.transport import curve_keys
from octavo.v1 import scheduling_pb2, scheduling_pb2_grpc, step_pb2

from .config import GroupConfig, SchedulerConfig
from .metrics import SchedulerCollector, StepTimes, log_status
from .scheduler import Scheduler
from .service import SERVICE_NAME, Engine, SchedulingServicer
from .sessions import RouterSessions
from .settings import SchedulerSettings
from .step_loop import StepLoop
from .worker_client import WorkerClient

# When the requests have finished, what is queued for the routers still has to go out.
_CLOSING_S = 2.0


def main(settings: Annotated[SchedulerSettings, cyclopts.Parameter(name="*")]) -> None:
    """Run the scheduler of one group of workers."""
    run_service(settings, serve, use_uvloop=True)


async def serve(settings: SchedulerSettings, report: StartupReport) -> None:
    servicer, registry = SchedulingServicer(), process_registry()
    times = StepTimes(registry)
    keys = curve_keys("--worker-endpoint", settings.worker_endpoint, settings)
    client = WorkerClient(
        settings.worker_endpoint, times, keys, step_timeout_s=settings.step_timeout_s
    )
    with contextlib.closing(client) as workers:
        async with _listening(settings.listen, servicer) as health:
            report.stage(f"listening on {settings.listen}")
            # Until the workers are ready there is nothing to drain: SIGTERM ends us at once.
            ready = await workers.ready()
            report.stage(f"worker joined: {ready.device}")
            config = scheduler_config(settings, ready, workers.epoch)
            scheduler, sessions = Scheduler(config), RouterSessions()
            registry.register(
                SchedulerCollector(scheduler, has_vllm_names=settings.vllm_metric_names)
            )
            if settings.metrics_port:
                serve_metrics(registry, settings.metrics_host, settings.metrics_port)
            step_loop = StepLoop(
                scheduler, workers, sessions, times, overlapped=settings.async_scheduling
            )
            servicer.open(Engine(step_loop, sessions, model_info(settings, ready, config)))
            await health.set_serving(True)
            report.ready(f"{settings.served_model_name[0]}, context {config.max_sequence_len:,}")
            async with _background(log_status(scheduler)):
                await _run(step_loop, health, settings.drain_timeout_s)
            sessions.close()


def scheduler_config(
    settings: SchedulerSettings, ready: step_pb2.WorkerReady, epoch: int
) -> SchedulerConfig:
    """Return the limits: of what is wanted and what the workers can do, the less."""
    return SchedulerConfig(
        epoch=epoch,
        block_size=ready.block_size,
        kv_groups=tuple(
            GroupConfig(num_blocks=group.num_blocks, sliding_window=group.sliding_window)
            for group in ready.kv_groups
        ),
        max_model_len=min(settings.max_model_len or ready.max_model_len, ready.max_model_len),
        max_num_seqs=min(settings.max_num_seqs, ready.num_rows),
        max_num_batched_tokens=min(
            settings.max_num_batched_tokens or ready.max_num_batched_tokens,
            ready.max_num_batched_tokens,
        ),
        model_hash=ready.model_hash,
        vocab_size=ready.vocab_size,
        policy=settings.scheduling_policy,
        enable_prefix_caching=settings.enable_prefix_caching,
        max_num_queued_requests=settings.max_num_queued_requests,
    )


def model_info(
    settings: SchedulerSettings, ready: step_pb2.WorkerReady, config: SchedulerConfig
) -> scheduling_pb2.ModelInfo:
    """Return what the routers need to know of the model."""
    return scheduling_pb2.ModelInfo(
        served_names=settings.served_model_name,
        path=ready.model_path,
        max_model_len=config.max_sequence_len,
        vocab_size=ready.vocab_size,
        eos_token_ids=ready.eos_token_ids,
        block_size=ready.block_size,
        model_hash=ready.model_hash,
        created_s=int(time.time()),
        has_priorities=settings.scheduling_policy == "priority",
    )


@contextlib.asynccontextmanager
async def _listening(address: str, servicer: SchedulingServicer) -> AsyncIterator[Health]:
    """Serve the routers' calls; raises StartupError if the address cannot be had."""
    register = partial(scheduling_pb2_grpc.add_SchedulingServicer_to_server, servicer)
    async with contextlib.AsyncExitStack() as stack:
        server = grpc_server(address, {SERVICE_NAME: register}, grace_s=_CLOSING_S)
        try:
            health = await stack.enter_async_context(server)
        except OSError as error:
            raise StartupError(f"{error} --listen gives another address.") from error
        yield health


async def _run(step_loop: StepLoop, health: Health, drain_timeout_s: float) -> None:
    """Step until told to stop, then let the requests finish."""
    async with _background(stop_requested()) as stop, _background(step_loop.run()) as steps:
        await asyncio.wait({stop, steps}, return_when=asyncio.FIRST_COMPLETED)
        if not steps.done():
            await health.set_serving(False)
            async with _background(step_loop.drain()) as drained:
                await asyncio.wait(
                    {drained, steps},
                    timeout=drain_timeout_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        if steps.done() and (error := steps.exception()) is not None:
            # A state that contradicts itself is not to be gone on with; the routers try again.
            text = f"the step loop failed: {type(error).__name__}: {error}"
            structlog.get_logger().error(text, exc_info=error)
            sys.exit(1)


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Run `work` beside the block, and cancel it at the block's end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
