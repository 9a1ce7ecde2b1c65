"""What a router knows of an engine's load and cache: what it was told, and what it sent since.

All of it is a guess: one that is wrong costs time, never an output.
"""

import time
from collections.abc import Callable, Sequence

from octavo.block_hash import HASH_BYTES
from octavo.v1 import scheduling_pb2

# What was sent counts as cached for so long at least: twice the period of the engine's own word.
_MEMORY_S = 2.0

_SHORT_HASH_BYTES = 4


def short_hashes(block_hashes: bytes) -> list[int]:
    """Return the beginnings of block hashes as schedulers tell them, as numbers."""
    return memoryview(block_hashes).cast("I")[:: HASH_BYTES // _SHORT_HASH_BYTES].tolist()


class EngineLoad:
    """Of one engine, for as long as the router is attached to it.

    Attributes:
        last_sent_s: when a request was sent there last, by the clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.last_sent_s = 0.0
        self._clock = clock
        self._told = scheduling_pb2.Load()
        # Requests sent since: their outputs, by request key, and the sum.
        self._untold: dict[bytes, int] = {}
        self._num_untold = 0
        self._cached: set[int] = set()
        # Of the prompts that were sent lately, and of those before them.
        self._sent: set[int] = set()
        self._sent_before: set[int] = set()
        self._sent_since_s = clock()

    @property
    def is_draining(self) -> bool:
        return self._told.is_draining

    @property
    def num_blocks(self) -> int:
        """The engine's size."""
        return max(self._told.num_blocks, 1)

    @property
    def num_outputs(self) -> int:
        """Outputs that wait, run, or were sent there since the engine said how many do."""
        return self._told.num_waiting + self._told.num_running + self._num_untold

    @property
    def num_outputs_per_block(self) -> float:
        """How busy the engine is, for its size."""
        return self.num_outputs / self.num_blocks

    def update(self, load: scheduling_pb2.Load) -> None:
        """Take the engine's word."""
        self._told = load
        self._untold.clear()
        self._num_untold = 0
        if load.HasField("cached_prefixes"):
            num_bytes = len(load.cached_prefixes)
            whole = num_bytes - num_bytes % _SHORT_HASH_BYTES
            self._cached = set(memoryview(load.cached_prefixes)[:whole].cast("I"))

    def add(self, request: scheduling_pb2.SubmitRequest) -> None:
        """Count a request that is sent there."""
        self._untold[request.request_key] = request.n
        self._num_untold += request.n
        self.last_sent_s = self._clock()
        if self.last_sent_s - self._sent_since_s > _MEMORY_S:
            self._sent, self._sent_before = set(), self._sent
            self._sent_since_s = self.last_sent_s
        self._sent.update(short_hashes(request.block_hashes))

    def remove(self, request_key: bytes) -> None:
        """Stop counting a request that has ended."""
        self._num_untold -= self._untold.pop(request_key, 0)

    def num_cached_blocks(self, hashes: Sequence[int]) -> int:
        """Return up to which block a prompt, told by its short hashes, seems to be cached.

        The last block that is known counts: what comes before it may have been used too long ago
        to be told, but was there when it was computed.
        """
        for index in range(len(hashes) - 1, -1, -1):
            known = hashes[index]
            if known in self._cached or known in self._sent or known in self._sent_before:
                return index + 1
        return 0
