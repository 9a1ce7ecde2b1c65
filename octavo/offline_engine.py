"""Router, scheduler and model in one process: their own parts, joined by calls, not by sockets."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from octavo.router.engine import Engine
from octavo.router.engine_catalog import EngineCatalog
from octavo.router.loaded_models import LoadedModels
from octavo.router.metrics import RouterMetrics
from octavo.router.open_requests import OpenRequests
from octavo.router.relay import Relays
from octavo.router.scheduler_client import SchedulerClient
from octavo.router.service import InferenceServicer
from octavo.scheduler.scheduler import Scheduler
from octavo.scheduler.server import model_info, scheduler_config
from octavo.scheduler.settings import SchedulerSettings
from octavo.worker.pending_step import FinishedStep, PendingStep
from octavo.worker.step_loop import StepRunner

from .errors import InternalError, RequestError
from .request_output import CompletionOutput, RequestOutput
from .v1 import inference_pb2, scheduling_pb2

_ROUTER_ID = bytes(16)
_UNLIMITED = 2**63

# How long what steps bring may wait to be read: all of it is then one event for each output.
_READ_INTERVAL_S = 1.0
# Steps whose tokens are handed out together, for little more than those of one.
_STEPS_TOGETHER = 16

Request = inference_pb2.GenerateRequest | inference_pb2.ChatRequest
_Result = TypeVar("_Result")


class InProcessScheduler(SchedulerClient):
    """The router's client of a scheduler, and the scheduler: runs a step when it is told to."""

    def __init__(self, runner: StepRunner, settings: SchedulerSettings) -> None:
        super().__init__("in this process", _ROUTER_ID)
        ready = runner.describe()
        # All prompts of a call wait at once.
        config = replace(
            scheduler_config(settings, ready, epoch=1),
            max_num_queued_requests=_UNLIMITED,
            max_num_queued_tokens=_UNLIMITED,
        )
        self.info = model_info(settings, ready, config)
        self._scheduler = Scheduler(config)
        self._runner = runner
        self._is_overlapped = settings.async_scheduling
        self._under_way: PendingStep | None = None

    @property
    def is_attached(self) -> bool:
        return True

    async def run(
        self,
        on_attached: Callable[[scheduling_pb2.ModelInfo], Awaitable[None]],
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        """Tell what is served, and stay until cancelled."""
        await on_attached(self.info)
        await on_change()
        await asyncio.Event().wait()

    def step(self) -> bool:
        """Plan a step and start it, and take the tokens of the one that is done.

        That is the step itself where it is computed as it is started, as on a CPU; a device has it
        queued behind the one before, which is waited for meanwhile.

        Returns:
            Whether there was a step to plan.
        """
        plan = self._scheduler.schedule(time.monotonic_ns())
        started = None if plan is None else self._runner.start(plan)
        if self._under_way is not None:
            self._update(self._under_way)
        if self._is_overlapped and not isinstance(started, FinishedStep):
            self._under_way = started
        else:
            self._under_way = None
            if started is not None:
                self._update(started)
        return plan is not None

    def deliver(self) -> None:
        """Hand the streams what the steps since the last call have brought."""
        for outputs in self._scheduler.take_outputs().values():
            self._hand_out(outputs)

    def _update(self, step: PendingStep) -> None:
        result = step.result()
        # Nobody waits between tokens: steps hold all they can, and do not depend on timing.
        result.ClearField("timings")
        self._scheduler.update(result, time.monotonic_ns())

    async def _send_submit(self, request: scheduling_pb2.SubmitRequest) -> None:
        try:
            self._scheduler.submit(request, time.monotonic_ns())
        except RequestError:
            self._with_logprobs.discard(request.request_key)
            raise

    def _send(self, message: scheduling_pb2.AttachRequest) -> None:
        if message.HasField("abort"):
            self._scheduler.abort(message.abort, time.monotonic_ns())
        elif message.HasField("window"):
            self._scheduler.set_window(message.window)


class OfflineEngine:
    """Runs requests through the router's own service, step by step, on one event loop."""

    def __init__(self, scheduler: InProcessScheduler, chat_template: Path | None) -> None:
        self._scheduler = scheduler
        engine = Engine(scheduler, LoadedModels(chat_template))
        open_requests = OpenRequests()
        self._servicer = InferenceServicer(
            EngineCatalog([engine]), open_requests, RouterMetrics(open_requests), Relays()
        )
        self._engine = engine
        self._attachment: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def start(self) -> None:
        """Read tokenizer and chat template; raises StartupError."""
        attached = asyncio.Event()

        async def on_change() -> None:
            attached.set()

        self._attachment = asyncio.create_task(self._engine.run(on_change))
        ready = asyncio.create_task(attached.wait())
        await asyncio.wait({self._attachment, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._attachment.done():
            self._attachment.result()

    async def close(self) -> None:
        """End the chat template's helper."""
        if self._attachment is not None:
            self._attachment.cancel()
            await asyncio.gather(self._attachment, return_exceptions=True)

    async def run(
        self, requests: Sequence[Request], on_finished: Callable[[RequestOutput], None]
    ) -> list[RequestOutput]:
        """Return the requests' outputs, in their order; all end together if one is refused.

        Every request is submitted before the first step, so that steps do not depend on timing.

        Raises:
            RequestError: a request is refused, or failed.
        """
        if self._failure is not None:
            raise InternalError(f"the engine failed before: {self._failure}; make a new LLM")
        calls: list[asyncio.Task[RequestOutput]] = []
        try:
            for request in requests:
                reader = _Reader(request)
                calls.append(asyncio.create_task(self._answer(reader, on_finished)))
                await reader.accepted(calls[-1])
            answers = asyncio.gather(*calls)
            is_watched = any(map(_is_watched, requests))
            await self._step_until(answers, 1 if is_watched else _STEPS_TOGETHER)
            return await answers
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _step_until(
        self, answers: "asyncio.Future[list[RequestOutput]]", num_steps_together: int
    ) -> None:
        """Step until the answers are there."""
        read_s, num_steps = time.monotonic(), 0
        while not answers.done():
            has_planned = self._guarded(self._scheduler.step)
            num_steps += 1
            is_read = not has_planned or time.monotonic() - read_s > _READ_INTERVAL_S
            if is_read or num_steps == num_steps_together:
                self._guarded(self._scheduler.deliver)
                num_steps = 0
            if is_read:
                # The calls take what the steps brought, and an interrupt is noticed.
                await asyncio.sleep(0)
                read_s = time.monotonic()

    def _guarded(self, call: Callable[[], _Result]) -> _Result:
        try:
            return call()
        except Exception as error:
            # Scheduler and model no longer agree on what has been computed.
            self._failure = error
            raise

    async def _answer(
        self, reader: "_Reader", on_finished: Callable[[RequestOutput], None]
    ) -> RequestOutput:
        if isinstance(reader.request, inference_pb2.ChatRequest):
            await self._servicer.Chat(reader.request, reader)
        else:
            await self._servicer.Generate(reader.request, reader)
        on_finished(reader.output)
        return reader.output


def _is_watched(request: Request) -> bool:
    """Whether each token is to be looked at as it comes.

    Its text may end the output; or log-probabilities come with it, of which a stream holds few.
    """
    return bool(request.options.stop.stop) or request.options.HasField("logprobs")


class _Reader:
    """The reader of one call, where the router's service expects gRPC's context."""

    def __init__(self, request: Request) -> None:
        options = request.options
        text = request.text if isinstance(request, inference_pb2.GenerateRequest) else ""
        self.request = request
        self.output = RequestOutput(options.request_id, text or None)
        self._stop_token_ids = frozenset(options.stop.stop_token_ids)
        self._has_started = asyncio.Event()

    async def accepted(self, call: "asyncio.Task[RequestOutput]") -> None:
        """Return when the scheduler has the request; raises what `call` was refused for."""
        # Most prompts are short, and need no more than a turn of the loop.
        await asyncio.sleep(0)
        if not self._has_started.is_set():
            started = asyncio.create_task(self._has_started.wait())
            await asyncio.wait({call, started}, return_when=asyncio.FIRST_COMPLETED)
            started.cancel()
        if call.done():
            call.result()

    # What the service calls.

    def time_remaining(self) -> None:
        """Offline requests have no deadline."""

    async def send_initial_metadata(self, metadata: object) -> None:
        """The request is valid."""
        self.output.outputs = [CompletionOutput(index) for index in range(self.request.options.n)]
        if self.request.options.HasField("logprobs"):
            for output in self.output.outputs:
                output.logprobs, output.cumulative_logprob = [], 0.0

    async def write(self, event: inference_pb2.StreamEvent) -> None:
        self.output.add(event, self._stop_token_ids)
        self._has_started.set()
