"""Log-probabilities that a device has computed, as they are told once they are on the host."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.kernels.logprobs import Logprobs
from octavo.v1 import common_pb2, step_pb2

from .logprobs import PromptRun


def position_message(
    told: Logprobs, i: int, token_id: int, num_top: int
) -> common_pb2.PositionLogprobs:
    """Tell those of row i, of which this token was asked for; they are on the host."""
    best = zip(told.top_ids[i, :num_top].tolist(), told.top[i, :num_top].tolist(), strict=True)
    return common_pb2.PositionLogprobs(
        chosen=common_pb2.TokenLogprob(
            token_id=token_id, logprob=float(told.chosen[i]), rank=int(told.ranks[i])
        ),
        top=[
            common_pb2.TokenLogprob(token_id=each, logprob=logprob, rank=rank)
            for rank, (each, logprob) in enumerate(best, start=1)
        ],
    )


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """A run of a prompt, whose log-probabilities are wanted, and what becomes of it.

    Attributes:
        token_ids: the run's tokens, as the host knows them: int32 [num_positions].
        num_top: how many of the best are told beside each.
        slices: of the run's positions, as many at a time as logits were in memory.
    """

    run: PromptRun
    token_ids: NDArray[np.int32]
    num_top: int
    slices: Sequence[Logprobs]

    def message(self) -> step_pb2.PromptLogprobs | None:
        """Tell them, once they are on the host; None if they are no numbers."""
        if any(part.chosen.isnan().any() for part in self.slices):
            return None
        run = self.run
        return step_pb2.PromptLogprobs(
            row=run.row, first_position=run.first_position, positions=self._positions()
        )

    def _positions(self) -> Iterator[common_pb2.PositionLogprobs]:
        token_ids = iter(self.token_ids.tolist())
        for part in self.slices:
            for i in range(len(part.chosen)):
                yield position_message(part, i, next(token_ids), self.num_top)
