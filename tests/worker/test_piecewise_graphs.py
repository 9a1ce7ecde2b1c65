"""octavo.worker.piecewise_graphs: which sizes there are, what fills them up, when each is recorded.

Whether a recorded piece computes what its launches do, only a GPU shows.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from octavo.kernels.device_layers import Activations
from octavo.kernels.paged_tokens import PagedTokens
from octavo.worker.models.decoder import StepInput
from octavo.worker.piecewise_graphs import PiecewiseGraphs, piece_sizes, with_tokens
from octavo.worker.plan_columns import PlanColumns

SIZES, NUM_LAYERS = [4, 8, 12], 3


def step_of(num_tokens: int) -> StepInput:
    none, some = torch.empty(0), torch.arange(num_tokens)
    return StepInput(some, PagedTokens(some, some, none, none, none), None)


class Layers:
    """Notes what is computed, and of how many tokens."""

    def __init__(self) -> None:
        self.computed: list[tuple[str, int, int]] = []

    def __len__(self) -> int:
        return NUM_LAYERS

    def activations(self, num_tokens: int) -> Activations:
        residual, q, attended = torch.zeros(3, num_tokens, 2)
        return Activations(residual, q, attended)

    def begin(self, tokens: PagedTokens) -> None:
        self.computed.append(("begin", 0, 0))

    def run_piece(
        self, i: int, input_ids: Tensor, tokens: PagedTokens, activations: Activations
    ) -> None:
        assert len(input_ids) == len(tokens.positions) == len(activations.residual)
        self.computed.append(("piece", i, len(input_ids)))

    def attend(self, i: int, activations: Activations) -> None:
        self.computed.append(("attend", i, len(activations.q)))

    def leave(self, activations: Activations, wanted: Tensor | None) -> Tensor:
        self.computed.append(("leave", 0, len(activations.q)))
        return activations.residual


class Replayed:
    def __init__(self, work: Callable[[], Tensor]) -> None:
        self.output = work()
        self.replay = work


class Recorder:
    """Has memory for sizes up to some."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self.sizes: list[int] = []
        self.addresses: set[int] = set()

    def record(self, work: Callable[[], Tensor]) -> Replayed:
        recorded = Replayed(work)
        if len(recorded.output) > self._max_size:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(recorded.output))
        self.addresses.add(recorded.output.data_ptr())
        return recorded


def graphs_of(layers: Layers, recorder: Recorder) -> PiecewiseGraphs:
    return PiecewiseGraphs(SIZES, layers, recorder, step_of)  # type: ignore[arg-type]


@given(st.integers(1, 5000))
def test_sizes_reach_the_most_tokens_of_a_step_or_512(max_num_batched_tokens: int) -> None:
    sizes = piece_sizes(max_num_batched_tokens)
    assert sizes == sorted(set(sizes)) and sizes[-1] == min(max_num_batched_tokens, 512)
    assert all(larger - smaller <= 64 for smaller, larger in pairwise([0, *sizes]))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 30))
def test_what_fills_a_step_up_is_tokens_of_no_row(num_new_tokens: list[int], extra: int) -> None:
    counts = np.array(num_new_tokens, np.int64)
    step = PlanColumns(np.arange(len(counts)) + 3, counts, np.ones(len(counts), np.bool_))
    filled = with_tokens(step, sum(num_new_tokens) + extra)
    assert filled.num_new_tokens.sum() == sum(num_new_tokens) + extra
    is_row = filled.row >= 0
    assert filled.row[is_row].tolist() == step.row.tolist()
    assert filled.num_new_tokens[is_row].tolist() == num_new_tokens
    assert is_row.tolist() == [True] * len(counts) + [False] * (extra > 0)
    assert not filled.needs_sample[~is_row].any() and filled.needs_sample[is_row].all()


def test_the_largest_size_comes_first_a_piece_at_a_time_in_memory_that_all_share() -> None:
    recorder = Recorder(max_size=100)
    graphs = graphs_of(Layers(), recorder)
    assert graphs.size_for(12) is None
    left = [graphs.capture_next() for _ in range(9)]
    assert recorder.sizes == [12] * 3 + [8] * 3 + [4] * 3
    assert left == [True] * 8 + [False]
    assert not graphs.capture_next()
    assert len(recorder.addresses) == 1


def test_a_size_is_there_when_all_its_pieces_are() -> None:
    graphs = graphs_of(Layers(), Recorder(max_size=100))
    assert graphs.capture_next() and graphs.capture_next()
    assert graphs.size_for(9) is None
    assert graphs.capture_next()
    assert graphs.size_for(9) == 12
    # That it would take three times as long is worse than launches.
    assert graphs.size_for(4) is None
    while graphs.capture_next():
        pass
    sizes = [graphs.size_for(num_tokens) for num_tokens in range(1, 15)]
    assert sizes == [4] * 4 + [8] * 4 + [12] * 4 + [None] * 2


def test_a_size_that_finds_no_memory_is_done_without() -> None:
    graphs = graphs_of(Layers(), Recorder(max_size=8))
    while graphs.capture_next():
        pass
    assert [graphs.size_for(num_tokens) for num_tokens in (3, 8, 9)] == [4, 8, None]


@pytest.mark.parametrize("num_tokens", [5, 8])
def test_a_step_attends_between_pieces_for_the_tokens_there_are(num_tokens: int) -> None:
    layers = Layers()
    graphs = graphs_of(layers, Recorder(max_size=100))
    graphs.capture_size()
    graphs.capture_size()
    layers.computed.clear()
    out = graphs.run(8, step_of(num_tokens).tokens, num_tokens, None)
    pieces = [
        step for i in range(NUM_LAYERS) for step in (("piece", i, 8), ("attend", i, num_tokens))
    ]
    assert layers.computed == [("begin", 0, 0), *pieces, ("leave", 0, num_tokens)]
    assert len(out) == num_tokens
