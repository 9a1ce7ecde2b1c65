"""A router that relays, step by step as a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from octavo.errors import RequestError, abort
from octavo.grpc_server import grpc_server
from octavo.v1.inference_pb2 import StreamEvent
from octavo.v1.inference_pb2_grpc import InferenceServicer, add_InferenceServicer_to_server
from octavo.v1.relay_pb2 import RelayAttachRequest, RelayAttachResponse
from octavo.v1.relay_pb2_grpc import RelayServicer, add_RelayServicer_to_server
from tests.gateway.fake_router import finished, started


class RelayingRouter(InferenceServicer, RelayServicer):
    """Each call it accepts is in `call_ids`; those that do not name its attachment, as None.

    Attributes:
        controls: what the gateway asks for.
        own: what the last call's own stream brings after Started; None ends it, an error fails it.
    """

    def __init__(self) -> None:
        self.controls: asyncio.Queue[RelayAttachRequest] = asyncio.Queue()
        self.call_ids: asyncio.Queue[int | None] = asyncio.Queue()
        self.own: asyncio.Queue[StreamEvent | RequestError | None] = asyncio.Queue()
        self._relayed: asyncio.Queue[RelayAttachResponse | None] = asyncio.Queue()
        self._num_attachments = 0
        self._id = b""

    @contextlib.asynccontextmanager
    async def serving(self, address: str) -> AsyncIterator[None]:
        services = {
            "octavo.v1.Inference": lambda server: add_InferenceServicer_to_server(self, server),
            "octavo.v1.Relay": lambda server: add_RelayServicer_to_server(self, server),
        }
        async with grpc_server(address, services, grace_s=0) as health:
            await health.set_serving(True)
            yield

    def relay(self, call_id: int, *texts: str, is_end: bool = False) -> None:
        """Send one message: each text as one token of output 0, and perhaps the output's end."""
        message = RelayAttachResponse(
            call_ids=[call_id] * len(texts),
            output_indices=[0] * len(texts),
            num_tokens=[1] * len(texts),
            texts=texts,
        )
        if is_end:
            message.finished.add(call_id=call_id, finished=finished().finished)
        self._relayed.put_nowait(message)

    def end_attachment(self) -> None:
        self._relayed.put_nowait(None)

    async def Attach(self, requests: Any, context: Any) -> None:
        self._num_attachments += 1
        self._id = bytes([self._num_attachments]) * 16
        reader = asyncio.create_task(self._read(requests))
        try:
            await context.write(RelayAttachResponse(relay_id=self._id))
            while (message := await self._relayed.get()) is not None:
                await context.write(message)
        finally:
            reader.cancel()

    async def Generate(self, request: Any, context: Any) -> None:
        key = dict(context.invocation_metadata()).get("x-relay-bin", b"")
        # A call that has just been cancelled must not take what is for the next one.
        own = self.own = asyncio.Queue()
        first = started()
        first.started.is_relayed = bool(key) and key[:16] == self._id
        self.call_ids.put_nowait(int.from_bytes(key[16:]) if first.started.is_relayed else None)
        await context.write(first)
        while (event := await own.get()) is not None:
            if isinstance(event, RequestError):
                await abort(context, event)
            else:
                await context.write(event)

    async def _read(self, requests: Any) -> None:
        async for request in requests:
            self.controls.put_nowait(request)
