"""A trial of a model on its device: what it takes beside the KV cache, before there is one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from octavo.v1.step_pb2 import StepPlan, StepResult

from .cuda_graphs import GraphRecorder
from .device_memory import DeviceMemory, MeasuredMemory, measure_memory
from .dummy_plans import dummy_plan, freeing_plan, largest_step, num_dummy_blocks
from .rows import RowLimits


class TriedRunner(Protocol):
    """What a trial asks of a runner."""

    @property
    def kv_cache_bytes(self) -> int: ...

    def execute(self, plan: StepPlan) -> StepResult: ...

    def captures(self, recorder: GraphRecorder) -> Sequence[Sequence[Callable[[], object]]]:
        """Return what captures its graphs, as measure_memory takes it; no step runs on them."""
        ...


def try_out(
    make_runner: Callable[[RowLimits], TriedRunner],
    limits: RowLimits,
    memory: DeviceMemory,
    free_at_start_bytes: int,
    recorder: GraphRecorder | None,
) -> MeasuredMemory:
    """Run the largest step, and record graphs if there is a recorder, with a cache for no more.

    Args:
        make_runner: for limits, of which only the blocks are fewer than those given.
        free_at_start_bytes: what was free before anything was loaded.
    """
    num_rows, num_tokens = largest_step(limits)
    runner = make_runner(
        replace(limits, num_blocks=(num_dummy_blocks(limits, num_rows, num_tokens),))
    )

    def run_largest_step() -> None:
        runner.execute(dummy_plan(limits, num_rows, num_tokens))
        runner.execute(freeing_plan(limits, num_rows))

    captures = runner.captures(recorder) if recorder is not None else ()
    return measure_memory(
        memory, free_at_start_bytes, run_largest_step, captures, runner.kv_cache_bytes
    )
