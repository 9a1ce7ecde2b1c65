"""The sequences without a row, in the order in which they get one.

One order rules: priority, then arrival, then output index. A preempted sequence is therefore back
in front of everyone who came after it.
"""

from bisect import bisect_left, insort
from operator import attrgetter

from .request import Sequence

_order = attrgetter("order")


class WaitingQueue:
    def __init__(self) -> None:
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def snapshot(self) -> list[Sequence]:
        """Return the sequences in order; the queue may change meanwhile."""
        return self._sequences.copy()

    def push(self, sequence: Sequence) -> None:
        insort(self._sequences, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        place = bisect_left(self._sequences, sequence.order, key=_order)
        assert self._sequences[place] is sequence
        del self._sequences[place]
