"""octavo.worker.cuda_graphs: which sizes there are, when they are captured, which one runs.

That a replayed graph computes what its launches do, and how much memory it takes, only a GPU shows.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from octavo.worker import cuda_graphs
from octavo.worker.cuda_graphs import DecodeGraphs, filled_up, graph_sizes
from octavo.worker.plan_columns import PlanColumns

SIZES = [1, 2, 4, 8]
BETWEEN = cuda_graphs._STEPS_BETWEEN_CAPTURES


class RecordedWork:
    def __init__(self, output: Tensor) -> None:
        self.output = output
        self.num_replays = 0

    def replay(self) -> None:
        self.num_replays += 1


class Recorder:
    """Notes the sizes in the order of their capture."""

    def __init__(self) -> None:
        self.recorded: list[RecordedWork] = []

    @property
    def sizes(self) -> list[int]:
        return [len(work.output) for work in self.recorded]

    def record(self, work: Callable[[], Tensor]) -> RecordedWork:
        self.recorded.append(RecordedWork(work()))
        return self.recorded[-1]


def logits(size: int) -> Tensor:
    return torch.arange(size)


def columns(*num_new_tokens: int, samples: bool = True) -> PlanColumns:
    return PlanColumns(
        row=np.arange(len(num_new_tokens)) + 5,
        num_new_tokens=np.array(num_new_tokens, np.int64),
        needs_sample=np.full(len(num_new_tokens), samples),
    )


@given(st.integers(1, 5000))
def test_sizes_reach_the_most_rows_and_little_is_filled_up(max_num_rows: int) -> None:
    sizes = graph_sizes(max_num_rows)
    assert sizes[0] == 1 and sizes[-1] == max_num_rows
    assert sizes == sorted(set(sizes))
    for smaller, larger in zip(sizes, sizes[1:], strict=False):
        # As many as the tensor cores take at once, or a quarter.
        assert larger - smaller <= max(8, smaller / 4)


def test_there_are_few_sizes() -> None:
    assert graph_sizes(256) == [
        *(1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64),
        *(80, 96, 112, 128, 160, 192, 224, 256),
    ]


def test_the_largest_is_captured_first_and_the_others_when_they_are_wanted() -> None:
    recorder = Recorder()
    graphs = DecodeGraphs(SIZES, recorder, logits)
    assert recorder.sizes == [8]
    assert graphs.size_for(3) == 4
    assert recorder.sizes == [8, 4]
    assert graphs.size_for(4) == graphs.size_for(3) == 4
    assert recorder.sizes == [8, 4]


def test_steps_run_between_two_captures_on_a_larger_graph() -> None:
    recorder = Recorder()
    graphs = DecodeGraphs(SIZES, recorder, logits)
    assert graphs.size_for(3) == 4
    assert [graphs.size_for(1) for _ in range(BETWEEN)] == [4] * BETWEEN
    assert graphs.size_for(1) == 1
    assert recorder.sizes == [8, 4, 1]
    assert graphs.size_for(2) == 4


def test_without_a_plan_the_largest_that_is_missing_comes_next() -> None:
    recorder = Recorder()
    graphs = DecodeGraphs(SIZES, recorder, logits)
    assert graphs.size_for(4) == 4
    assert [graphs.capture_next() for _ in range(3)] == [True, False, False]
    assert recorder.sizes == [8, 4, 2, 1]


class ShortOfMemory(Recorder):
    """Has memory for no graph but the first."""

    def record(self, work: Callable[[], Tensor]) -> RecordedWork:
        if self.recorded:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().record(work)


def test_a_graph_that_finds_no_memory_is_done_without() -> None:
    graphs = DecodeGraphs(SIZES, ShortOfMemory(), logits)
    assert graphs.size_for(3) == 8
    assert [graphs.capture_next() for _ in range(3)] == [True, False, False]
    assert graphs.size_for(1) == 8


def test_more_rows_than_the_largest_have_no_graph() -> None:
    graphs = DecodeGraphs(SIZES, Recorder(), logits)
    assert graphs.size_for(9) is None
    assert graphs.size_for(0) is None


def test_a_replay_gives_the_output_of_its_size() -> None:
    recorder = Recorder()
    graphs = DecodeGraphs(SIZES, recorder, logits)
    size = graphs.size_for(2)
    assert size == 2
    assert graphs.replay(size) is recorder.recorded[1].output
    assert [work.num_replays for work in recorder.recorded] == [0, 1]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (columns(1, 1), True),
        (columns(1, 2), False),
        (columns(1, samples=False), False),
    ],
)
def test_a_decode_step_samples_after_one_token_of_each_row(
    step: PlanColumns, expected: bool
) -> None:
    assert step.is_decode is expected


def test_what_fills_a_step_up_is_no_row() -> None:
    filled = filled_up(columns(1, 1, 1), 5)
    assert filled.row.tolist() == [5, 6, 7, -1, -1]
    assert filled.num_new_tokens.tolist() == [1] * 5
    assert filled.needs_sample.all() and len(filled.needs_sample) == 5
