"""Log-probabilities, of the raw logits: of the tokens drawn, and of those of the prompt.

    logprob[t] = logits[t] − log Σ exp(logits)        in float32, one position at a time

Equal logits are ranked by token id, as everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.v1 import common_pb2, step_pb2

from .plan_columns import PlanColumns
from .row_sampling import NO_LOGPROBS
from .rows import Rows

Logits = NDArray[np.float32]

LOGITS_SLICE = 64
"""Positions of a prompt whose logits are in memory at a time."""


@dataclass(frozen=True, slots=True)
class PromptRun:
    """Tokens of a row's prompt whose log-probabilities are wanted and come from this step."""

    row: int
    first_position: int
    """Position of the first of them; its logits are those after the token before it."""
    num_positions: int
    first_index: int
    """Where that token before it stands among the step's tokens."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """Index into the step's tokens, of those whose logits are needed."""
        return np.arange(self.first_index, self.first_index + self.num_positions)


def prompt_runs(rows: Rows, columns: PlanColumns) -> list[PromptRun]:
    """Return the runs of a step that is about to be computed, in the order of its tokens."""
    wanting = np.flatnonzero(rows.sampling.num_prompt_logprobs[columns.row] != NO_LOGPROBS)
    runs = []
    for i in wanting.tolist():
        row = int(columns.row[i])
        start = int(rows.num_computed_tokens[row])
        # The logits after the prompt's last token are those of the output's first.
        end = min(start + int(columns.num_new_tokens[i]), int(rows.num_prompt_tokens[row]) - 1)
        if start < end:
            runs.append(
                PromptRun(row, start + 1, end - start, int(columns.num_new_tokens[:i].sum()))
            )
    return runs


def sampled_logprobs(
    raw: Logits, rows: Rows, wanting: NDArray[np.intp], tokens: NDArray[np.int64]
) -> list[common_pb2.PositionLogprobs]:
    """Return the log-probabilities of the tokens that were drawn; those below 0 were not.

    Args:
        raw: [len(wanting), vocab_size], before any rule.
        wanting: the rows that want them.
    """
    counts = rows.sampling.num_logprobs[wanting].tolist()
    return [
        position_logprobs(logits, token, count)
        for logits, token, count in zip(raw, tokens.tolist(), counts, strict=True)
        if token >= 0
    ]


def prompt_logprobs(
    run: PromptRun, rows: Rows, logits_of: Callable[[slice], Logits]
) -> step_pb2.PromptLogprobs | None:
    """Return the log-probabilities of a run; None if they are no numbers.

    Args:
        logits_of: gives the logits of some of the run's positions, counted from its first.
    """
    count = int(rows.sampling.num_prompt_logprobs[run.row])
    message = step_pb2.PromptLogprobs(row=run.row, first_position=run.first_position)
    for start in range(0, run.num_positions, LOGITS_SLICE):
        stop = min(start + LOGITS_SLICE, run.num_positions)
        first = run.first_position
        tokens = rows.token_ids[run.row, first + start : first + stop]
        for logits, token in zip(logits_of(slice(start, stop)), tokens.tolist(), strict=True):
            if not np.isfinite(logits.max()):
                return None
            message.positions.append(position_logprobs(logits, token, count))
    return message


def position_logprobs(logits: Logits, chosen: int, num_top: int) -> common_pb2.PositionLogprobs:
    """Return the log-probability of a token and of the `num_top` most probable ones.

    Args:
        logits: [vocab_size], the largest of them finite.
    """
    largest = logits.max()
    logprobs = logits - (largest + np.log(np.exp(logits - largest).sum()))
    num_larger = int(np.count_nonzero(logits > logits[chosen]))
    num_equal_before = int(np.count_nonzero(logits[:chosen] == logits[chosen]))

    def token(token_id: int, rank: int) -> common_pb2.TokenLogprob:
        return common_pb2.TokenLogprob(
            token_id=token_id, logprob=float(logprobs[token_id]), rank=rank
        )

    best = _best(logits, num_top).tolist()
    return common_pb2.PositionLogprobs(
        chosen=token(chosen, num_larger + num_equal_before + 1),
        top=[token(token_id, rank) for rank, token_id in enumerate(best, start=1)],
    )


def _best(logits: Logits, count: int) -> NDArray[np.intp]:
    """Return the tokens of the `count` largest logits, in order."""
    if not count:
        return np.empty(0, np.intp)
    least = np.partition(logits, -count)[-count]
    candidates = np.flatnonzero(logits >= least)
    return candidates[np.argsort(-logits[candidates], kind="stable")][:count]
