"""How the tokens of each row are drawn: the sampling parameters of all rows, in columns."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.v1 import step_pb2

from .block_tables import TRAP, BadPlan
from .logits_rules import rules_of
from .undo_log import UndoLog

NO_LOGPROBS = -1


class RowSampling:
    """The parameters of all rows, with the defaults of common.proto.

    Attributes:
        temperature, top_p, min_p: float32 [num_rows].
        top_k: int32 [num_rows]; 0 keeps all tokens.
        has_rules: bool [num_rows]; whether `rules` has LogitsRules for the row.
        rules: object [num_rows].
        num_logprobs: int32 [num_rows]; how many of the best tokens' log-probabilities are wanted
            beside that of the token drawn; NO_LOGPROBS: not even that one.
        num_prompt_logprobs: int32 [num_rows]; the same for the tokens of the prompt.
        takes_best: bool [num_rows]; whether the most probable token is all that the row wants.
    """

    def __init__(self, num_rows: int, vocab_size: int, undo: UndoLog) -> None:
        """All writes but those of `fork` go through `undo`."""
        self.temperature = np.zeros(num_rows, np.float32)
        self.top_p = np.zeros(num_rows, np.float32)
        self.min_p = np.zeros(num_rows, np.float32)
        self.top_k = np.zeros(num_rows, np.int32)
        self.has_rules = np.zeros(num_rows, np.bool_)
        self.rules = np.full(num_rows, None, np.object_)
        self.num_logprobs = np.full(num_rows, NO_LOGPROBS, np.int32)
        self.num_prompt_logprobs = np.full(num_rows, NO_LOGPROBS, np.int32)
        self.takes_best = np.zeros(num_rows, np.bool_)
        self._vocab_size = vocab_size
        self._undo = undo

    def set(self, added: step_pb2.AddedRow) -> None:
        """Take over the parameters of a row that is added; raises BadPlan."""
        row, sampling = added.row, added.sampling
        temperature = sampling.temperature if sampling.HasField("temperature") else 1.0
        top_p = sampling.top_p if sampling.HasField("top_p") else 1.0
        if not (0.0 <= temperature < math.inf and 0.0 < top_p <= 1.0 and 0 <= sampling.min_p <= 1):
            raise BadPlan(
                f"row {row} is added with temperature {temperature}, top_p {top_p} and min_p"
                f" {sampling.min_p}"
            )
        rules = rules_of(added, self._vocab_size)
        write = self._undo.write
        write(self.temperature, row, temperature)
        write(self.top_p, row, top_p)
        write(self.min_p, row, sampling.min_p)
        # To keep more tokens than there are is to keep all, and the column could not hold it.
        write(self.top_k, row, min(sampling.top_k, self._vocab_size))
        write(self.has_rules, row, rules is not None)
        # As a slice, so that the object itself is stored and restored.
        write(self.rules, slice(row, row + 1), [rules])
        self._set_logprobs(added)
        is_plain = rules is None and not added.HasField("num_logprobs")
        write(self.takes_best, row, temperature == 0 and is_plain)

    def _set_logprobs(self, added: step_pb2.AddedRow) -> None:
        wanted = added.num_logprobs if added.HasField("num_logprobs") else NO_LOGPROBS
        of_prompt = (
            added.num_prompt_logprobs if added.HasField("num_prompt_logprobs") else NO_LOGPROBS
        )
        self._undo.write(self.num_logprobs, added.row, min(wanted, self._vocab_size))
        self._undo.write(self.num_prompt_logprobs, added.row, min(of_prompt, self._vocab_size))

    def fork(self, source: int, row: int) -> None:
        """Give a new row the parameters of its source."""
        for values in self._columns():
            values[row] = values[source]

    def poison(self, row: int) -> None:
        """Fill a row that is not in use with values that fail loudly."""
        for sampling in (self.temperature, self.top_p, self.min_p):
            self._undo.write(sampling, row, math.nan)
        for counts in (self.top_k, self.num_logprobs, self.num_prompt_logprobs):
            self._undo.write(counts, row, TRAP)
        self._undo.write(self.has_rules, row, True)
        self._undo.write(self.rules, slice(row, row + 1), [None])

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return (
            *(self.temperature, self.top_p, self.min_p, self.top_k),
            *(self.has_rules, self.rules, self.num_logprobs, self.num_prompt_logprobs),
            self.takes_best,
        )
