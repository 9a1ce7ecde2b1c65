"""The sequences of a step, in the order of its columns, and what no step changes about them.

Steps between two changes of who runs share a roster, so that this is made once for all of them.
"""

from functools import lru_cache

from octavo.v1 import step_pb2

from .request import Sequence


class Roster:
    """Sequences that have rows.

    Attributes:
        sequences: never changed, because steps share it.
        rows: theirs.
        with_logprobs: those whose tokens come with log-probabilities.
    """

    def __init__(self, sequences: list[Sequence]) -> None:
        self.sequences = sequences
        self.rows = [sequence.row for sequence in sequences]
        self.with_logprobs = [sequence for sequence in sequences if sequence.wants_logprobs]
        self._row_column = step_pb2.StepPlan(row=self.rows).SerializeToString()

    def plan(self) -> step_pb2.StepPlan:
        """Return a plan with these rows, in which each gets its next token.

        Parsing columns is several times as fast as setting them from lists.
        """
        # One message after the other is both, merged.
        return step_pb2.StepPlan.FromString(self._row_column + _decoding_columns(len(self.rows)))


@lru_cache(maxsize=64)
def _decoding_columns(num_rows: int) -> bytes:
    """Return a plan with all columns but `row`, serialized."""
    ones = [1] * num_rows
    return step_pb2.StepPlan(num_new_tokens=ones, needs_sample=ones).SerializeToString()
