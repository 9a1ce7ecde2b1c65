"""The Relay service: gateways attach, and get the text of their calls."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from octavo.v1 import relay_pb2, relay_pb2_grpc

from .relay import Relay, Relays


class RelayServicer(relay_pb2_grpc.RelayServicer):
    """Attach; what it raises becomes its status in CallInterceptor."""

    def __init__(self, relays: Relays) -> None:
        self._relays = relays

    async def Attach(
        self, requests: AsyncIterator[relay_pb2.RelayAttachRequest], context: Any
    ) -> None:
        with self._relays.attached() as relay:
            # The one ends when the router is about to, the other when the gateway leaves.
            sending = asyncio.create_task(relay.send_all(context.write))
            listening = asyncio.create_task(_listen(requests, relay))
            try:
                done, _ = await asyncio.wait(
                    (sending, listening), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
            finally:
                sending.cancel()
                listening.cancel()
                await asyncio.gather(sending, listening, return_exceptions=True)


async def _listen(requests: AsyncIterator[relay_pb2.RelayAttachRequest], relay: Relay) -> None:
    async for request in requests:
        relay.control(request)
