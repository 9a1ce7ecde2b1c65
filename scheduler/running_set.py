"""The sequences that have a row of the workers, and the rows."""

from bisect import bisect_left, insort
from operator import attrgetter

from .request import Sequence

_order = attrgetter("order")


class RunningSet:
    """Running sequences, in the same order as the waiting queue: that in which they are planned."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self.clear()

    def clear(self) -> None:
        """Begin anew, with workers that know of no row."""
        self._sequences: list[Sequence] = []
        # Taken from the end: low rows first.
        self._free_rows = list(reversed(range(self._num_rows)))
        self._freed_rows: list[int] = []

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def has_free_row(self) -> bool:
        return bool(self._free_rows)

    def snapshot(self) -> list[Sequence]:
        """Return the sequences in order; the set may change meanwhile."""
        return self._sequences.copy()

    def add(self, sequence: Sequence) -> None:
        """Give the sequence a row; there has to be a free one."""
        sequence.row = self._free_rows.pop()
        insort(self._sequences, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Take the sequence's row back."""
        place = bisect_left(self._sequences, sequence.order, key=_order)
        assert self._sequences[place] is sequence
        del self._sequences[place]
        self._free_rows.append(sequence.row)
        self._freed_rows.append(sequence.row)
        sequence.row = -1

    def take_freed_rows(self) -> list[int]:
        """Return the rows given back since the last call, for the workers."""
        freed, self._freed_rows = self._freed_rows, []
        return freed
