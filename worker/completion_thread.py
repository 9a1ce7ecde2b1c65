"""The thread that waits for a device, so that the step loop's own is free for the next plan."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from octavo.cores import leave_starters_core


class CompletionThread:
    """Runs what follows each step, in the order of steps. There is no thread until it is needed.

    After one that raises, nothing more is run.
    """

    def __init__(self, on_failure: Callable[[Exception], None]) -> None:
        """`on_failure` is called, on this thread, with what was raised."""
        self._on_failure = on_failure
        self._completions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, completion: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="completions", daemon=True)
            self._thread.start()
        self._completions.put(completion)

    def close(self) -> None:
        """Return when all that was added has been run, or one has failed."""
        if self._thread is not None:
            self._completions.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        leave_starters_core()
        while (completion := self._completions.get()) is not None:
            try:
                completion()
            except Exception as error:  # noqa: BLE001 - the step loop raises it
                self._on_failure(error)
                return
