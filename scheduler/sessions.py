"""Router sessions: what goes down each Attach stream, bounded for a router that does not read."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import structlog

from octavo.errors import FailedPrecondition, Overloaded, RequestError
from octavo.v1 import scheduling_pb2

MAX_QUEUED_BYTES = 16 * 1024 * 1024
"""For one router, beside what gRPC itself holds: some seconds of a thousand streams."""


class RouterSession:
    """One attachment of one router. Ends when it is cut, closed, or its stream ends."""

    def __init__(self, hello: scheduling_pb2.Hello, max_queued_bytes: int) -> None:
        self.router_id = hello.router_id
        self.incarnation = hello.incarnation
        self._max_queued_bytes = max_queued_bytes
        self._queue: deque[scheduling_pb2.AttachResponse] = deque()
        self._queued_bytes = 0
        self._is_closing = False
        self._wake = asyncio.Event()
        self.cut_off: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done, with a RequestError, once the session is cut."""

    def put(self, response: scheduling_pb2.AttachResponse) -> None:
        """Queue a message; cuts the session if the router has left too many unread."""
        if self.cut_off.done():
            return
        self._queued_bytes += response.ByteSize()
        if self._queued_bytes > self._max_queued_bytes:
            self.cut(
                Overloaded(
                    f"the router has left more than {self._max_queued_bytes} bytes unread;"
                    " its requests are aborted"
                )
            )
            return
        self._queue.append(response)
        self._wake.set()

    def cut(self, error: RequestError) -> None:
        """End the session now, whatever is still queued."""
        if not self.cut_off.done():
            self._queue.clear()
            self.cut_off.set_exception(error)
            # Read here, or asyncio would complain of a session whose stream is gone already.
            self.cut_off.exception()

    def close(self) -> None:
        """End the session once all that is queued has been sent."""
        self._is_closing = True
        self._wake.set()

    async def send_all(
        self, write: Callable[[scheduling_pb2.AttachResponse], Awaitable[None]]
    ) -> None:
        """Write messages as they come, until the session is closed."""
        while self._queue or not self._is_closing:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            response = self._queue.popleft()
            await write(response)
            self._queued_bytes -= response.ByteSize()


class RouterSessions:
    """The attached routers, by router id."""

    def __init__(self, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._max_queued_bytes = max_queued_bytes
        self._by_router: dict[bytes, RouterSession] = {}
        self._log = structlog.get_logger()

    def __contains__(self, router_id: bytes) -> bool:
        return router_id in self._by_router

    def __len__(self) -> int:
        return len(self._by_router)

    def attach(self, hello: scheduling_pb2.Hello) -> RouterSession:
        """Open a session; an earlier one of the same router is cut."""
        if (earlier := self._by_router.get(hello.router_id)) is not None:
            if hello.incarnation <= earlier.incarnation:
                raise FailedPrecondition(
                    f"this router is attached with incarnation {earlier.incarnation};"
                    f" {hello.incarnation} is not later"
                )
            earlier.cut(FailedPrecondition("the router has attached again"))
        session = RouterSession(hello, self._max_queued_bytes)
        self._by_router[hello.router_id] = session
        self._log.info("router attached", router=hello.router_id.hex()[:8])
        return session

    def detach(self, session: RouterSession) -> bool:
        """Forget a session; return whether it was the router's current one."""
        if self._by_router.get(session.router_id) is not session:
            return False
        del self._by_router[session.router_id]
        self._log.info("router detached", router=session.router_id.hex()[:8])
        return True

    def deliver(self, outputs: Mapping[bytes, scheduling_pb2.StepOutputs]) -> None:
        """Queue what a step brought, one message for each router; one that has left gets none."""
        for router_id, step_outputs in outputs.items():
            if (session := self._by_router.get(router_id)) is not None:
                session.put(scheduling_pb2.AttachResponse(outputs=step_outputs))

    def broadcast(self, load: scheduling_pb2.Load) -> None:
        for session in self._by_router.values():
            session.put(scheduling_pb2.AttachResponse(load=load))

    def close(self) -> None:
        """Let every session end after its last message."""
        for session in self._by_router.values():
            session.close()
