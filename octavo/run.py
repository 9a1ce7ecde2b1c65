"""Runs a process: its event loop, and SIGTERM and SIGINT as a request to drain."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine

import uvloop

_STOPPED_AT_ONCE = 130


def run(main: Coroutine[None, None, None], *, use_uvloop: bool = False) -> None:
    """Run `main` to its end.

    uvloop pays where the process reads its own sockets (gateway, scheduler, worker); grpc.aio does
    its own input and output and gains nothing from it.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if use_uvloop else None) as runner:
        # Ctrl-C before stop_requested() has taken the signals over ends without a traceback.
        with contextlib.suppress(KeyboardInterrupt):
            runner.run(main)


async def stop_requested() -> None:
    """Return at the first SIGTERM or SIGINT. A second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def handle() -> None:
        if stop.is_set():
            os._exit(_STOPPED_AT_ONCE)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)
    await stop.wait()
