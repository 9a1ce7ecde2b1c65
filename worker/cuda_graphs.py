"""CUDA graphs of decode steps: all launches of a forward pass, recorded once and replayed as one.

A graph computes a fixed number of rows. A step runs on the smallest that holds its rows; those that
fill it up are no rows (-1): they are written nowhere and attend to nothing. The largest is captured
before the server is ready, and takes the memory that all of them share; the others are captured
while there is no plan yet, the largest first, or when they are first wanted: a server is ready
before it has all of them.

Idea of graphs for a table of batch sizes: vLLM (https://github.com/vllm-project/vllm).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .plan_columns import PlanColumns

NO_ROW = -1

# Capturing takes as long as several steps: where batches grow or shrink fast, steps run between two
# captures, on graphs that are larger than they need. Not yet measured.
_STEPS_BETWEEN_CAPTURES = 32


class Graph(Protocol):
    """Recorded work."""

    output: Tensor
    """What it computes, at the same place each time, until any graph is replayed."""

    def replay(self) -> None:
        """Queue the work."""
        ...


class GraphRecorder(Protocol):
    """What records work: CUDA, or a test."""

    def record(self, work: Callable[[], Tensor]) -> Graph:
        """Record what `work` queues, having run it once. All graphs share one pool of memory."""
        ...


def graph_sizes(max_num_rows: int) -> list[int]:
    """Return the numbers of rows that have graphs, ascending: few, and little is filled up.

    Each is at most a quarter larger than the one before it, where rows are many enough that filling
    up costs.
    """
    sizes = [1, 2, 4, 8]
    while sizes[-1] < max_num_rows:
        step = max(8, 1 << (sizes[-1].bit_length() - 3))
        sizes.append(sizes[-1] + step)
    return [size for size in sizes if size < max_num_rows] + [max_num_rows]


def filled_up(columns: PlanColumns, size: int) -> PlanColumns:
    """Return the columns of a decode step with rows that are none behind them, `size` in all."""
    num_missing = size - len(columns.row)
    return PlanColumns(
        row=np.pad(columns.row, (0, num_missing), constant_values=NO_ROW),
        num_new_tokens=np.ones(size, np.int64),
        needs_sample=np.ones(size, np.bool_),
    )


class DecodeGraphs:
    """The graphs of one runner. Only its thread calls this."""

    def __init__(
        self, sizes: Sequence[int], recorder: GraphRecorder, run: Callable[[int], Tensor]
    ) -> None:
        """Take the largest graph's memory, and with it that of all.

        Args:
            sizes: numbers of rows, ascending.
            run: queues the forward pass of so many rows that are none, and returns its hidden
                states, at addresses that depend on the number alone.
        """
        self._sizes = list(sizes)
        self._recorder = recorder
        self._run = run
        self._graphs: dict[int, Graph] = {}
        self._num_steps = 0
        self._capture_from = 0
        self._record(sizes[-1])

    def size_for(self, num_rows: int) -> int | None:
        """Return the size of the graph for a step of so many rows, captured by now.

        None: there is no graph as large. Called once for each step.
        """
        if not 0 < num_rows <= self._sizes[-1]:
            return None
        self._num_steps += 1
        wanted = next(size for size in self._sizes if size >= num_rows)
        if wanted not in self._graphs and self._num_steps > self._capture_from:
            self._capture(wanted)
            self._capture_from = self._num_steps + _STEPS_BETWEEN_CAPTURES
        return min(size for size in self._graphs if size >= num_rows)

    def capture_next(self) -> bool:
        """Capture the largest graph that is missing; return whether others are."""
        missing = [size for size in self._sizes if size not in self._graphs]
        if missing:
            self._capture(missing[-1])
        return len(missing) > 1

    def replay(self, size: int) -> Tensor:
        """Queue the forward pass of a step that was filled up to this size.

        Returns its hidden states.
        """
        graph = self._graphs[size]
        graph.replay()
        return graph.output

    def _capture(self, size: int) -> None:
        """Capture a graph, or do without it for good: a larger one computes the same."""
        try:
            self._record(size)
        except torch.OutOfMemoryError:
            self._sizes.remove(size)

    def _record(self, size: int) -> None:
        self._graphs[size] = self._recorder.record(lambda: self._run(size))


class CudaGraph:
    def __init__(self, graph: torch.cuda.CUDAGraph, output: Tensor) -> None:
        self.output = output
        self._graph = graph

    def replay(self) -> None:
        self._graph.replay()


class CudaGraphRecorder:
    """Records on a stream of its own."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Tensor]) -> CudaGraph:
        # What kernels do when they first run, such as being compiled, cannot be recorded.
        work()
        graph = torch.cuda.CUDAGraph()
        # The thread that waits for results goes on meanwhile; its calls are not to be recorded.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = work()
        return CudaGraph(graph, output)
