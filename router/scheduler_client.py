"""The only code that calls a scheduler: keeps attached to it, submits requests, aborts them."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import structlog

from octavo.errors import Unavailable, from_rpc_error
from octavo.grpc_server import CHANNEL_OPTIONS
from octavo.startup import StartupError
from octavo.v1 import scheduling_pb2, scheduling_pb2_grpc
from octavo.version import PROTOCOL_VERSION

from .engine_load import EngineLoad
from .output_stream import OutputStream, SlowReader
from .step_outputs import MalformedOutputs, hand_out

# A scheduler that is starting is found a fifth of a second after it listens.
_CHANNEL_OPTIONS = [
    *(option for option in CHANNEL_OPTIONS if option[0] != "grpc.max_reconnect_backoff_ms"),
    ("grpc.max_reconnect_backoff_ms", 200),
]
_FIRST_RETRY_S = 0.1
_MAX_RETRY_S = 2.0
_RETRY_AFTER_S = 1.0
_UNREACHABLE = "the scheduler cannot be reached; send the request again"

# What a scheduler says about a request; anything else from it is an error of ours.
_SUBMIT_ERRORS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
}

log = structlog.get_logger()


class SchedulerClient:
    """One scheduler, and the streams of the requests it runs for this router."""

    def __init__(self, address: str, router_id: bytes) -> None:
        """`router_id` is 16 random bytes, the same for the process's life."""
        self.address = address
        self.load = EngineLoad()
        self._router_id = router_id
        self._incarnations = itertools.count(1)
        self._streams: dict[bytes, OutputStream] = {}
        # Requests whose tokens have log-probabilities, until the scheduler's last word about them:
        # their columns must be understood even when nobody reads them any more.
        self._with_logprobs: set[bytes] = set()
        self._control: asyncio.Queue[scheduling_pb2.AttachRequest] | None = None
        self._stub: Any = None

    @property
    def is_attached(self) -> bool:
        return self._control is not None

    @property
    def is_serving(self) -> bool:
        """Whether it takes requests."""
        return self.is_attached and not self.load.is_draining

    async def run(
        self,
        on_attached: Callable[[scheduling_pb2.ModelInfo], Awaitable[None]],
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        """Stay attached until cancelled; open streams fail UNAVAILABLE when the scheduler is lost.

        Args:
            on_attached: awaited with what the scheduler serves before anything is sent to it.
            on_change: awaited when the scheduler has begun or ceased to serve.
        Raises:
            StartupError: the scheduler speaks another version of the protocol.
        """
        delay_s = _FIRST_RETRY_S
        async with grpc.aio.insecure_channel(self.address, options=_CHANNEL_OPTIONS) as channel:
            self._stub = scheduling_pb2_grpc.SchedulingStub(channel)
            while True:
                try:
                    await self._attach(on_attached, on_change)
                except (grpc.aio.AioRpcError, _NotAScheduler, MalformedOutputs) as error:
                    reason = error.details() if isinstance(error, grpc.RpcError) else str(error)
                    log.warning("scheduler lost", scheduler=self.address, reason=reason)
                finally:
                    was_attached = self._lose()
                if was_attached:
                    delay_s = _FIRST_RETRY_S
                    await on_change()
                # Routers that lost the same scheduler do not come back in step.
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
                delay_s = min(2 * delay_s, _MAX_RETRY_S)

    @contextlib.asynccontextmanager
    async def submitted(
        self, request: scheduling_pb2.SubmitRequest, stream: OutputStream
    ) -> AsyncIterator[None]:
        """Have the scheduler run a request while the block runs; what is left then is aborted.

        Raises:
            NotSubmitted: the scheduler is away or draining; the block was not entered.
            RequestError: the scheduler refuses the request.
        """
        key = request.request_key
        # Before it is submitted: its first tokens may be here before the answer.
        self._streams[key] = stream
        self.load.add(request)
        reason = scheduling_pb2.ABORT_REASON_CLIENT
        try:
            await self._submit(request)
            try:
                yield
            except SlowReader:
                reason = scheduling_pb2.ABORT_REASON_SLOW_READER
                raise
            finally:
                if not stream.is_closed:
                    self.abort(key, reason)
        finally:
            del self._streams[key]
            self.load.remove(key)

    def abort(
        self,
        request_key: bytes,
        reason: scheduling_pb2.AbortReason,
        *,
        output_index: int | None = None,
        final_token_count: int | None = None,
    ) -> None:
        """Stop one output, or all; a scheduler that is not attached has stopped them already."""
        abort = scheduling_pb2.Abort(
            request_key=request_key,
            output_index=output_index,
            reason=reason,
            final_token_count=final_token_count,
        )
        self._send(scheduling_pb2.AttachRequest(abort=abort))

    def set_window(self, request_key: bytes, output_index: int, max_position: int) -> None:
        window = scheduling_pb2.Window(
            request_key=request_key, output_index=output_index, max_position=max_position
        )
        self._send(scheduling_pb2.AttachRequest(window=window))

    def _send(self, message: scheduling_pb2.AttachRequest) -> None:
        if self._control is not None:
            self._control.put_nowait(message)

    async def _submit(self, request: scheduling_pb2.SubmitRequest) -> None:
        if not self.is_attached:
            raise NotSubmitted(_UNREACHABLE, retry_after_s=_RETRY_AFTER_S)
        if request.HasField("num_logprobs"):
            self._with_logprobs.add(request.request_key)
        request.router_id = self._router_id
        await self._send_submit(request)

    async def _send_submit(self, request: scheduling_pb2.SubmitRequest) -> None:
        # Shielded: had the client left in the meantime, the request might be accepted all the same.
        call = asyncio.ensure_future(self._call_submit(request))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            call.add_done_callback(lambda done: self._abort_accepted(request.request_key, done))
            raise

    async def _call_submit(self, request: scheduling_pb2.SubmitRequest) -> None:
        try:
            await self._stub.Submit(request)
        except grpc.aio.AioRpcError as error:
            self._with_logprobs.discard(request.request_key)
            raise _refusal(error) from error

    def _abort_accepted(self, request_key: bytes, submit: "asyncio.Future[None]") -> None:
        if not submit.cancelled() and submit.exception() is None:
            self.abort(request_key, scheduling_pb2.ABORT_REASON_CLIENT)

    async def _attach(
        self,
        on_attached: Callable[[scheduling_pb2.ModelInfo], Awaitable[None]],
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        """Attach once, and read until the stream ends."""
        call = self._stub.Attach(wait_for_ready=True)
        try:
            welcome = await self._greet(call)
            await on_attached(welcome.model)
            log.info("scheduler attached", scheduler=self.address, path=welcome.model.path)
            self._control = asyncio.Queue()
            control = asyncio.create_task(_write_all(self._control, call))
            try:
                await on_change()
                while (message := await call.read()) is not grpc.aio.EOF:
                    if message.HasField("outputs"):
                        self._hand_out(message.outputs)
                    elif message.HasField("load"):
                        was_serving = self.is_serving
                        self.load.update(message.load)
                        if self.is_serving != was_serving:
                            await on_change()
            finally:
                control.cancel()
                # It fails where reading does: of the stream's end.
                await asyncio.gather(control, return_exceptions=True)
            raise _NotAScheduler("it ended the stream")
        finally:
            call.cancel()

    def _hand_out(self, outputs: scheduling_pb2.StepOutputs) -> None:
        """Give the streams what a step brought; raises MalformedOutputs."""
        hand_out(outputs, self._streams, self._with_logprobs)
        for finished in outputs.finished:
            if finished.HasField("usage"):
                self._with_logprobs.discard(finished.request_key)

    async def _greet(self, call: Any) -> scheduling_pb2.Welcome:
        hello = scheduling_pb2.Hello(
            router_id=self._router_id,
            incarnation=next(self._incarnations),
            protocol_version=PROTOCOL_VERSION,
        )
        try:
            await call.write(scheduling_pb2.AttachRequest(hello=hello))
            answer = await call.read()
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                raise StartupError(f"scheduler {self.address}: {error.details()}") from error
            raise
        if answer is grpc.aio.EOF or not answer.HasField("welcome"):
            raise _NotAScheduler("its first message is no Welcome")
        welcome: scheduling_pb2.Welcome = answer.welcome
        if welcome.protocol_version != PROTOCOL_VERSION:
            raise StartupError(
                f"scheduler {self.address} speaks protocol {welcome.protocol_version}, this router"
                f" {PROTOCOL_VERSION}; run the same version of octavo for both"
            )
        return welcome

    def _lose(self) -> bool:
        """Fail what is open; return whether a scheduler was attached."""
        was_attached, self._control = self.is_attached, None
        self.load = EngineLoad()
        self._with_logprobs.clear()
        for stream in self._streams.values():
            stream.fail(Unavailable(_UNREACHABLE, retry_after_s=_RETRY_AFTER_S))
        return was_attached


class NotSubmitted(Unavailable):
    """The scheduler has not taken the request; another one may."""


class _NotAScheduler(Exception):
    """What is at the address does not behave as a scheduler."""


async def _write_all(control: "asyncio.Queue[scheduling_pb2.AttachRequest]", call: Any) -> None:
    while True:
        await call.write(await control.get())


def _refusal(error: grpc.aio.AioRpcError) -> Exception:
    """Return what a refused Submit means to the client."""
    refusal = from_rpc_error(error)
    if error.code() in _SUBMIT_ERRORS:
        return refusal
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.FAILED_PRECONDITION):
        # It drains, and says so. Or it was replaced and does not know us yet, or its connection
        # broke: then our stream did too, which ends what it may have taken.
        is_its_word = refusal.retry_after_s is not None
        message = refusal.message if is_its_word else _UNREACHABLE
        return NotSubmitted(message, retry_after_s=refusal.retry_after_s or _RETRY_AFTER_S)
    unexpected: Exception = error
    return unexpected
