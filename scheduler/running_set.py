"""The sequences that have a row of the workers, and the rows.

A sequence whose next tokens take no decision *coasts*: their slots are there and its own, and no
limit is reached. It is part of every step, one token each, until it is due, and nothing is written
down for it meanwhile: how far it has come is told by the number of steps since. A step costs the
decisions that it takes, not the rows that it has.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from operator import attrgetter

from .request import Sequence
from .roster import Roster

_order = attrgetter("order")


class RunningSet:
    """Running sequences, in the same order as the waiting queue: that in which they are planned.

    Attributes:
        num_coasting: how many of them coast.
    """

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._last_step_id = 0
        self.clear()

    def clear(self) -> None:
        """Begin anew, with workers that know of no row."""
        self._sequences: list[Sequence] = []
        # Of all of them; None: to be made.
        self._roster: Roster | None = None
        # A set, in the order in which they landed, which is much that in which they are planned.
        self._landed: dict[Sequence, None] = {}
        self.num_coasting = 0
        # By step; one that landed before, or was removed, is still in it.
        self._due: defaultdict[int, list[Sequence]] = defaultdict(list)
        self._ending: dict[int, list[Sequence]] = {}
        # Taken from the end: low rows first.
        self._free_rows = list(reversed(range(self._num_rows)))
        self._freed_rows: list[int] = []

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def has_free_row(self) -> bool:
        return bool(self._free_rows)

    def snapshot(self) -> list[Sequence]:
        """Return the sequences in order, their lengths up to date; the set may change meanwhile."""
        for sequence in self._sequences:
            if sequence.due_step_id:
                self._settle(sequence)
        return self._sequences.copy()

    def landed(self) -> list[Sequence]:
        """Return the sequences that do not coast, in order."""
        return sorted(self._landed, key=_order)

    def add(self, sequence: Sequence) -> None:
        """Give the sequence a row; there has to be a free one."""
        sequence.row = self._free_rows.pop()
        insort(self._sequences, sequence, key=_order)
        self._roster = None
        self._landed[sequence] = None

    def remove(self, sequence: Sequence) -> None:
        """Take the sequence's row back; it does not coast."""
        del self._landed[sequence]
        place = self._place(sequence)
        assert self._sequences[place] is sequence
        del self._sequences[place]
        self._roster = None
        self._free_rows.append(sequence.row)
        self._freed_rows.append(sequence.row)
        sequence.row = -1

    def take_freed_rows(self) -> list[int]:
        """Return the rows given back since the last call, for the workers."""
        freed, self._freed_rows = self._freed_rows, []
        return freed

    # Coasting.

    def coast(self, sequence: Sequence, num_steps: int, *, is_to_end: bool) -> None:
        """Let a sequence of the last step be part of the next `num_steps`, one token each.

        `is_to_end`: the last of these steps brings the output's last token.
        """
        due_step_id = self._last_step_id + num_steps + 1
        sequence.due_step_id = due_step_id
        del self._landed[sequence]
        self.num_coasting += 1
        self._due[due_step_id].append(sequence)
        if is_to_end:
            self._ending.setdefault(due_step_id - 1, []).append(sequence)

    def land(self, sequence: Sequence) -> None:
        """Let the next step take a decision on the sequence, if it coasts."""
        if sequence.due_step_id:
            self._land(sequence)

    def land_due(self, step_id: int) -> list[Sequence]:
        """Return, in order, the sequences that the step takes a decision on."""
        for sequence in self._due.pop(step_id, ()):
            if sequence.due_step_id == step_id:
                self._land(sequence)
        return self.landed()

    def land_last(self, count: int) -> None:
        """Let the last coasting sequences miss the step that is being planned."""
        coasting = [sequence for sequence in self._sequences if sequence.due_step_id]
        for sequence in coasting[len(coasting) - count :]:
            self.land(sequence)

    def num_coasting_before(self, sequence: Sequence) -> int:
        """Return how many of those before the sequence coast."""
        order = sequence.order
        return self._place(sequence) - sum(other.order < order for other in self._landed)

    def advance(self, step_id: int) -> list[Sequence]:
        """Count all that coast as part of the step; return those that it brings the last token."""
        self._last_step_id = step_id
        return self._ending.pop(step_id, [])

    def coasting_and(self, decided: list[Sequence]) -> Roster:
        """Return, in order, the sequences that coast and these, which do not."""
        if len(decided) < len(self._landed):
            takes_part = set(decided)
            return Roster([s for s in self._sequences if s.due_step_id or s in takes_part])
        if self._roster is None:
            self._roster = Roster(self._sequences.copy())
        return self._roster

    def _land(self, sequence: Sequence) -> None:
        self._settle(sequence)
        sequence.due_step_id = 0
        self.num_coasting -= 1
        self._landed[sequence] = None

    def _settle(self, sequence: Sequence) -> None:
        """Write down how far a coasting sequence has come."""
        num_steps = self._last_step_id - sequence.last_step_id
        sequence.num_computed_tokens += num_steps
        sequence.num_expected_tokens += num_steps
        sequence.last_step_id = self._last_step_id

    def _place(self, sequence: Sequence) -> int:
        return bisect_left(self._sequences, sequence.order, key=_order)
