"""A thread with an event loop, for callers that have none, or one of their own."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_JOIN_TIMEOUT_S = 10.0
_Result = TypeVar("_Result")


class LoopThread:
    """Runs coroutines on its loop while callers wait."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="octavo-engine", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns; Ctrl-C ends it where it next waits."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C arrives here, while the work is on the other thread.
            future.cancel()
            raise

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_TIMEOUT_S)

    def _serve(self) -> None:
        self._loop.run_forever()
        self._loop.close()
