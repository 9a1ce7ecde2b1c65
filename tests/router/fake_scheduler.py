"""A scheduler without an engine: the real gRPC service, saying what the test tells it to say."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from octavo.errors import RequestError, abort
from octavo.grpc_server import SERVER_OPTIONS
from octavo.v1 import common_pb2, scheduling_pb2, scheduling_pb2_grpc
from octavo.version import PROTOCOL_VERSION


class FakeScheduler(scheduling_pb2_grpc.SchedulingServicer):
    """What routers send is in `hellos`, `submitted` and `controls`; `send_…` answers them.

    Attributes:
        refusal: raised by every Submit, if set.
        accepting: Submit waits for it; set at first.
    """

    def __init__(self, model: scheduling_pb2.ModelInfo) -> None:
        self.model = model
        self.protocol_version = PROTOCOL_VERSION
        self.hellos: asyncio.Queue[scheduling_pb2.Hello] = asyncio.Queue()
        self.submitted: asyncio.Queue[scheduling_pb2.SubmitRequest] = asyncio.Queue()
        self.controls: asyncio.Queue[scheduling_pb2.AttachRequest] = asyncio.Queue()
        self.refusal: RequestError | None = None
        self.accepting = asyncio.Event()
        self.accepting.set()
        self._down: asyncio.Queue[scheduling_pb2.AttachResponse] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[None]:
        """Serve at the address for as long as the block runs; then break every connection."""
        server = grpc.aio.server(options=SERVER_OPTIONS)
        scheduling_pb2_grpc.add_SchedulingServicer_to_server(self, server)
        server.add_insecure_port(address)
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)

    async def Attach(self, requests: Any, context: Any) -> None:
        first = await anext(aiter(requests))
        self.hellos.put_nowait(first.hello)
        self._down = asyncio.Queue()
        welcome = scheduling_pb2.Welcome(protocol_version=self.protocol_version, model=self.model)
        await context.write(scheduling_pb2.AttachResponse(welcome=welcome))
        reader = asyncio.create_task(self._read(requests))
        try:
            while True:
                await context.write(await self._down.get())
        finally:
            reader.cancel()

    async def Submit(
        self, request: scheduling_pb2.SubmitRequest, context: Any
    ) -> scheduling_pb2.SubmitResponse:
        self.submitted.put_nowait(request)
        await self.accepting.wait()
        if self.refusal is not None:
            await abort(context, self.refusal)
        return scheduling_pb2.SubmitResponse()

    async def _read(self, requests: Any) -> None:
        async for message in requests:
            self.controls.put_nowait(message)

    async def aborted(self) -> scheduling_pb2.Abort:
        """Return the next Abort that a router sends; no other message may come before it."""
        control = await self.controls.get()
        assert control.HasField("abort"), control
        return control.abort

    def send(self, outputs: scheduling_pb2.StepOutputs) -> None:
        self._down.put_nowait(scheduling_pb2.AttachResponse(outputs=outputs))

    def send_load(self, load: scheduling_pb2.Load) -> None:
        self._down.put_nowait(scheduling_pb2.AttachResponse(load=load))

    def send_tokens(
        self,
        request: scheduling_pb2.SubmitRequest,
        token_ids: Sequence[int],
        *,
        position: int = 0,
        output_index: int = 0,
        logprobs: Sequence[common_pb2.PositionLogprobs] = (),
    ) -> None:
        """Send one step that brought tokens for one output."""
        self.send(
            scheduling_pb2.StepOutputs(
                request_key=[request.request_key],
                output_index=[output_index],
                first_position=[position],
                num_tokens=[len(token_ids)],
                token_ids=token_ids,
                logprobs=logprobs,
            )
        )

    def send_finished(
        self,
        request: scheduling_pb2.SubmitRequest,
        reason: common_pb2.FinishReason = common_pb2.FINISH_REASON_LENGTH,
        *,
        output_index: int = 0,
        stop_token_id: int | None = None,
        error: str = "",
        num_output_tokens: int | None = None,
    ) -> None:
        """Send that an output has ended; with a number of tokens it is the request's last."""
        finished = scheduling_pb2.OutputFinished(
            request_key=request.request_key,
            output_index=output_index,
            reason=reason,
            stop_token_id=stop_token_id,
            error=error,
        )
        if num_output_tokens is not None:
            finished.usage.num_prompt_tokens = len(request.prompt_token_ids)
            finished.usage.num_output_tokens = num_output_tokens
        self.send(scheduling_pb2.StepOutputs(finished=[finished]))
