"""CUDA graphs of what lies between attentions, for steps that compute prompts.

A graph of a whole step fixes what each row does. What lies between two attentions depends on the
number of tokens alone: it is recorded for a table of numbers, and a step runs on the smallest that
holds it. What fills it up is tokens of no row: they are written nowhere, nobody attends to them,
and attentions leave them out, for these are launched one by one, over the rows there are. So is
what follows the last of them, for the few tokens that are wanted.

Idea: vLLM's piecewise graphs (https://github.com/vllm-project/vllm).
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from octavo.kernels.device_layers import Activations, DeviceLayers
from octavo.kernels.paged_tokens import PagedTokens

from .cuda_graphs import NO_ROW, Graph, GraphRecorder
from .models.decoder import StepInput
from .plan_columns import PlanColumns

# With more tokens a GPU takes longer for a launch than the host; reasoned, not yet measured.
_MAX_TOKENS = 512
# Some 300 tokens of an H200 take as long as reading the weights for one: filling up costs little.
_BETWEEN_SIZES = 64
_SMALL_SIZES = (16, 32)


def piece_sizes(max_num_batched_tokens: int) -> list[int]:
    """Return the numbers of tokens that have graphs, ascending."""
    limit = min(max_num_batched_tokens, _MAX_TOKENS)
    sizes = [*_SMALL_SIZES, *range(_BETWEEN_SIZES, limit, _BETWEEN_SIZES)]
    return [size for size in sizes if size < limit] + [limit]


def with_tokens(columns: PlanColumns, num_tokens: int) -> PlanColumns:
    """Return the columns of a step with tokens that are no row's behind them, so many in all."""
    num_missing = num_tokens - int(columns.num_new_tokens.sum())
    if not num_missing:
        return columns
    return PlanColumns(
        row=np.append(columns.row, NO_ROW),
        num_new_tokens=np.append(columns.num_new_tokens, num_missing),
        needs_sample=np.append(columns.needs_sample, False),
    )


class PiecewiseGraphs:
    """The graphs of one runner's pieces, and the memory they hand on in. Only its thread calls."""

    def __init__(
        self,
        sizes: Sequence[int],
        layers: DeviceLayers,
        recorder: GraphRecorder,
        step_of: Callable[[int], StepInput],
    ) -> None:
        """Record nothing yet.

        Args:
            sizes: numbers of tokens, ascending.
            step_of: returns the input of so many tokens of no row, having put it where that of
                steps lies.
        """
        self._sizes = list(sizes)
        self._layers = layers
        self._recorder = recorder
        self._step_of = step_of
        self._missing = list(sizes)
        self._pieces: dict[int, list[Graph]] = {size: [] for size in sizes}

    @property
    def num_sizes(self) -> int:
        return len(self._sizes)

    def size_for(self, num_tokens: int) -> int | None:
        """Return the size whose graphs run a step of so many tokens.

        None: no size holds them, or it is not recorded by now; those of a larger one may take
        longer than launches do.
        """
        place = bisect_left(self._sizes, num_tokens)
        size = self._sizes[place] if place < len(self._sizes) else 0
        return size if len(self._pieces.get(size, ())) == len(self._layers) else None

    def capture_next(self) -> bool:
        """Record a piece that is missing, of the largest sizes first; return whether others are.

        A size that finds no memory is done without.
        """
        if not self._missing:
            return False
        size = self._missing[-1]
        try:
            self._record_piece(size)
        except torch.OutOfMemoryError:
            del self._pieces[size]
            self._missing.pop()
        else:
            if len(self._pieces[size]) == len(self._layers):
                self._missing.pop()
        return bool(self._missing)

    @torch.inference_mode()
    def capture_size(self) -> None:
        """Record all pieces of the largest size that is missing."""
        size = self._missing.pop()
        for _ in range(len(self._layers)):
            self._record_piece(size)

    def run(self, size: int, tokens: PagedTokens, num_tokens: int, wanted: Tensor | None) -> Tensor:
        """Queue a step whose input was filled up to this size; as DeviceLayers.hidden_states.

        Args:
            tokens: of the rows that have the first `num_tokens` tokens.
        """
        activations = self._activations.first(num_tokens)
        self._layers.begin(tokens)
        for i, piece in enumerate(self._pieces[size]):
            piece.replay()
            self._layers.attend(i, activations)
        return self._layers.leave(activations, wanted)

    @cached_property
    def _activations(self) -> Activations:
        """Memory of the largest size, taken when its first piece is recorded."""
        return self._layers.activations(self._sizes[-1])

    def _record_piece(self, size: int) -> None:
        pieces, activations = self._pieces[size], self._activations.first(size)
        step, i = self._step_of(size), len(pieces)

        def work() -> Tensor:
            self._layers.run_piece(i, step.input_ids, step.tokens, activations)
            return activations.q

        pieces.append(self._recorder.record(work))
