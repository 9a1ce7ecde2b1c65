"""The worker process: load the model, find the scheduler, run steps until told to stop."""

import asyncio
import dataclasses
import sys
from typing import Annotated

import cyclopts
import structlog

from octavo.cores import take_core
from octavo.curve import CurveKeys
from octavo.metrics_server import serve_metrics
from octavo.model_files import locate_model
from octavo.run import stop_requested
from octavo.startup import StartupReport, run_service
from octavo.transport import curve_keys

from .metrics import WorkerMetrics
from .mock_runner import MockRunner
from .scheduler_client import SchedulerClient
from .settings import WorkerSettings
from .step_loop import StepFailed, StepLoop, StepRunner


def main(settings: Annotated[WorkerSettings, cyclopts.Parameter(name="*")]) -> None:
    """Run one device: load the model and do what the scheduler's plans say."""
    run_service(settings, serve, use_uvloop=True)


async def serve(settings: WorkerSettings, report: StartupReport) -> None:
    endpoint = settings.scheduler_endpoint
    keys = curve_keys("--scheduler-endpoint", endpoint, settings, max_peers=1)
    # Until the model is loaded there is nothing to finish: SIGTERM ends the process at once.
    runner = build_runner(settings, report)
    stop = asyncio.create_task(stop_requested())
    work = asyncio.create_task(_work(settings, report, runner, keys))
    await asyncio.wait({stop, work}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stop, work):
        task.cancel()
    (_, failure) = await asyncio.gather(stop, work, return_exceptions=True)
    if isinstance(failure, StepFailed):
        structlog.get_logger().error(str(failure), process="worker")
        sys.exit(1)
    if isinstance(failure, Exception):
        raise failure


def build_runner(settings: WorkerSettings, report: StartupReport) -> StepRunner:
    """Return the mock or the model; torch is imported for the model only."""
    if settings.mock:
        return MockRunner(settings)
    from .loading import load_model_runner

    # A name stands for what was fetched before: workers often have no network but their own.
    found = dataclasses.replace(settings, model=str(locate_model(settings.model)))
    return load_model_runner(found, report)


async def _work(
    settings: WorkerSettings, report: StartupReport, runner: StepRunner, keys: CurveKeys | None
) -> None:
    ready = runner.describe()
    metrics = WorkerMetrics(ready)
    if settings.metrics_port:
        serve_metrics(metrics.registry, settings.metrics_host, settings.metrics_port)
    endpoint = settings.scheduler_endpoint
    async with SchedulerClient(endpoint, ready, rank=settings.rank, keys=keys) as scheduler:
        epoch = await scheduler.welcomed()
        if settings.step_loop_core is not None:
            take_core(settings.step_loop_core)
        report.ready(f"{ready.device}, {ready.dtype}, epoch {epoch}")
        await StepLoop(runner, scheduler, metrics).run()
