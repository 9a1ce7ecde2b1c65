"""octavo.worker.device_memory: against a device whose every byte is known.

What CUDA says of its memory, and how much graphs take, only a GPU shows.
"""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.startup import StartupError
from octavo.worker.device_memory import MeasuredMemory, measure_memory
from octavo.worker.memory_ledger import MemoryLedger
from tests.worker.simulated_memory import GIB, SimulatedMemory

CONTEXT, KERNELS, WEIGHTS, ACTIVATIONS, CACHE = 1 * GIB, GIB // 4, 16 * GIB, 3 * GIB, GIB // 8
LARGEST_GRAPH, GRAPH = GIB // 2, GIB // 64


class Model:
    """What a runner takes on a simulated device; its first step loads the kernels."""

    def __init__(self, memory: SimulatedMemory) -> None:
        self._memory = memory
        self._has_run = False

    def run_largest_step(self) -> None:
        if not self._has_run:
            self._memory.load(KERNELS)
        self._has_run = True
        with self._memory.allocated(ACTIVATIONS - GIB), self._memory.allocated(GIB):
            pass

    def captures(self, count: int) -> list[Callable[[], None]]:
        sizes = [LARGEST_GRAPH] + [GRAPH] * (count - 1)
        return [partial(self._memory.take_for_graph, size) for size in sizes[:count]]


def measured(memory: SimulatedMemory, *num_graphs: int) -> MeasuredMemory:
    """Return what is found of a model with so many graphs of each kind."""
    free_at_start = memory.free_bytes()
    model = Model(memory)
    memory.allocate(WEIGHTS)
    with memory.allocated(CACHE):
        captures = [model.captures(count) for count in num_graphs]
        return measure_memory(memory, free_at_start, model.run_largest_step, captures, CACHE)


def test_each_byte_is_found_where_it_is() -> None:
    assert measured(SimulatedMemory(others=CONTEXT), 20) == MeasuredMemory(
        total_bytes=140 * GIB,
        others_bytes=CONTEXT,
        program_bytes=KERNELS,
        weights_bytes=WEIGHTS,
        graphs_bytes=LARGEST_GRAPH + 19 * GRAPH,
        activations_bytes=ACTIVATIONS,
    )


@pytest.mark.parametrize(
    ("num_graphs", "expected"),
    [
        ([], 0),
        ([1], LARGEST_GRAPH),
        ([2], LARGEST_GRAPH + GRAPH),
        ([3], LARGEST_GRAPH + 2 * GRAPH),
        ([3, 5], 2 * LARGEST_GRAPH + 6 * GRAPH),
    ],
)
def test_graphs_that_were_not_captured_count_as_the_second_of_their_kind(
    num_graphs: list[int], expected: int
) -> None:
    assert measured(SimulatedMemory(), *num_graphs).graphs_bytes == expected


def test_the_cache_gets_what_is_left_of_the_share() -> None:
    found = measured(SimulatedMemory(others=CONTEXT))
    assert found.kv_cache_bytes(0.9) == 126 * GIB - found.own_bytes


def test_the_share_is_this_workers_and_others_keep_theirs() -> None:
    others = measured(SimulatedMemory(others=60 * GIB))
    assert others.kv_cache_bytes(0.5) == 70 * GIB - others.own_bytes
    assert others.kv_cache_bytes(0.9) == 80 * GIB - others.own_bytes


@pytest.mark.parametrize(("total", "share"), [(20 * GIB, 0.9), (140 * GIB, 0.1)])
def test_without_room_for_a_cache_an_operator_is_told_what_takes_it(
    total: int, share: float
) -> None:
    found = measured(SimulatedMemory(total=total))
    with pytest.raises(StartupError) as refused:
        found.kv_cache_bytes(share)
    text = str(refused.value)
    assert f"--gpu-memory-utilization {share:g}" in text
    assert "weights 17.2 GB" in text and "the largest step 3.2 GB" in text


@given(st.integers(0, 100 * GIB), st.floats(0.5, 1.0))
def test_the_parts_of_the_ledger_are_all_the_memory(others: int, share: float) -> None:
    found = measured(SimulatedMemory(others=others))
    ledger = MemoryLedger(found, found.kv_cache_bytes(share))
    rows = dict(ledger.rows())
    assert sum(rows.values()) == found.total_bytes
    assert min(rows.values()) >= 0


def test_the_ledger_is_one_line_at_the_start() -> None:
    ledger = MemoryLedger(measured(SimulatedMemory(others=CONTEXT), 20), 100 * GIB)
    assert ledger.line() == (
        "memory 150.32 GB: others 1.07, kernels 0.27, weights 17.18, graphs 0.86,"
        " activations 3.22, KV cache 107.37, reserve 20.35"
    )
