"""HTTP by hand, for what no client library would send."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any


class RawConnection:
    """One TCP connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def post(self, path: str, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
        await self.send(head.encode() + content)

    async def read_head(self) -> int:
        """Return the status of the next response."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1])

    async def read_to_end(self) -> bytes:
        """Return all that comes until the gateway closes the connection."""
        return await self.reader.read()

    def close(self) -> None:
        self._writer.close()


@contextlib.asynccontextmanager
async def connect(port: int) -> AsyncIterator[RawConnection]:
    connection = RawConnection(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield connection
    finally:
        connection.close()
