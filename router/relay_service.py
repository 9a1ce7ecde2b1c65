"""The Relay service: gateways attach, and get the text of their calls."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from octavo.v1 import relay_pb2, relay_pb2_grpc

from .relay import Relays


class RelayServicer(relay_pb2_grpc.RelayServicer):
    """Attach; what it raises becomes its status in CallInterceptor."""

    def __init__(self, relays: Relays) -> None:
        self._relays = relays

    async def Attach(
        self, requests: AsyncIterator[relay_pb2.RelayAttachRequest], context: Any
    ) -> None:
        with self._relays.attached() as relay:
            sender = asyncio.create_task(relay.send_all(context.write))
            try:
                # Ends when the gateway leaves, as the sender's writes do.
                async for request in requests:
                    relay.control(request)
            finally:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
