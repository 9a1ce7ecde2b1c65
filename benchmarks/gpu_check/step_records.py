"""What the steps of an engine took: noted as they run, understood when all is over."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from octavo import LLM
from octavo.v1.step_pb2 import StepPlan, StepResult, StepTimings, WorkerReady
from octavo.worker.pending_step import FinishedStep, PendingStep
from octavo.worker.settings import WorkerSettings
from octavo.worker.step_loop import StepRunner

from .models import ModelShape
from .probes import Ceilings
from .report import Row, spread_row


@dataclass(slots=True)
class StepRecord:
    """One step.

    Attributes:
        started_s: when its plan was handed to the runner, on time.perf_counter.
        ended_s: when its result was known.
        waited_s: how long somebody waited for that.
        device_s: from the device's first work for it to the last, as the device tells.
    """

    plan: StepPlan
    started_s: float
    ended_s: float = 0.0
    waited_s: float = 0.0
    device_s: float = 0.0


class RecordedRunner:
    """Runs steps on another runner, and keeps a record of each."""

    def __init__(self, runner: StepRunner) -> None:
        self.records: list[StepRecord] = []
        self._runner = runner

    def describe(self) -> WorkerReady:
        return self._runner.describe()

    def prepare(self) -> bool:
        return self._runner.prepare()

    def start(self, plan: StepPlan) -> PendingStep:
        record = StepRecord(plan, time.perf_counter())
        self.records.append(record)
        step = _RecordedStep(self._runner.start(plan), record)
        # Whether there is something to wait for is seen by its type.
        return FinishedStep(step.result()) if isinstance(step.step, FinishedStep) else step


@dataclass(frozen=True, slots=True)
class _RecordedStep:
    step: PendingStep
    record: StepRecord

    def result(self) -> StepResult:
        asked_s = time.perf_counter()
        result = self.step.result()
        record = self.record
        record.ended_s = time.perf_counter()
        record.waited_s = record.ended_s - asked_s
        record.device_s = device_ns(result.timings) / 1e9
        return result


class RecordedLLM(LLM):
    """An LLM that says what its steps took."""

    runner: RecordedRunner

    def load_runner(self, settings: WorkerSettings) -> StepRunner:
        self.runner = RecordedRunner(super().load_runner(settings))
        return self.runner


def device_ns(timings: StepTimings) -> int:
    return timings.copy_ns + timings.forward_ns + timings.sample_ns


@dataclass(slots=True)
class _RowsSoFar:
    """How far each row is computed, and how many blocks it has, plan after plan; none is forked."""

    num_computed: dict[int, int] = field(default_factory=dict)
    num_blocks: dict[int, int] = field(default_factory=dict)

    def apply(self, plan: StepPlan) -> None:
        for row in plan.freed_rows:
            self.num_computed.pop(row, None)
            self.num_blocks.pop(row, None)
        for added in plan.added_rows:
            self.num_computed[added.row] = added.num_computed_tokens
            self.num_blocks[added.row] = sum(len(each.block_ids) for each in added.block_tables)
        for group in plan.groups:
            for row, count in zip(group.grown_row, group.num_new_blocks, strict=True):
                self.num_blocks[row] += count
        for row, count in zip(plan.row, plan.num_new_tokens, strict=True):
            self.num_computed[row] += count


def step_figures(
    records: Sequence[StepRecord],
    model: ModelShape,
    ceilings: Ceilings,
    itemsize: int,
    block_size: int,
) -> Row:
    """Return what a run's steps took, beside the least that a GPU allows for the same ones.

    A step counts from the end of the one before it, as a client sees it. Idle is the device between
    two steps: from the last work of one to the first of the next; that it waits within a step, for
    launches that come late, is not in it. Of blocks, the share is told that holds no token.
    `host_us` is what a step costs the processor, whether the device waits for that or not.
    """
    # One may be under way yet, for outputs that have ended.
    records = [record for record in records if record.ended_s]
    ends_s = [records[0].started_s, *(record.ended_s for record in records)]
    steps_s = [end - begin for begin, end in pairwise(ends_s)]
    wall_s = ends_s[-1] - ends_s[0]
    rows, decodes = _RowsSoFar(), list[tuple[float, float]]()
    num_tokens = num_slots = 0
    for record, step_s in zip(records, steps_s, strict=True):
        rows.apply(record.plan)
        num_tokens += sum(rows.num_computed.values())
        num_slots += sum(rows.num_blocks.values()) * block_size
        if record.plan.row and all(count == 1 for count in record.plan.num_new_tokens):
            num_read = sum(rows.num_computed[row] for row in record.plan.row)
            floor_s = decode_floor_s(len(record.plan.row), num_read, model, ceilings, itemsize)
            decodes.append((step_s, floor_s))
    device_s = sum(record.device_s for record in records)
    host_s = wall_s - sum(record.waited_s for record in records)
    return {
        "num_steps": len(records),
        **spread_row("step_ms", steps_s),
        **spread_row("decode_ms", [step_s for step_s, _ in decodes]),
        **_percent_of_floor(decodes),
        "gpu_idle_percent": round(100 * max(0.0, 1 - device_s / wall_s), 2),
        "host_us": round(1e6 * host_s / len(records), 1),
        "kv_waste_percent": round(100 * (1 - num_tokens / num_slots), 2) if num_slots else 0.0,
    }


def decode_floor_s(
    num_rows: int, num_read: int, model: ModelShape, ceilings: Ceilings, itemsize: int
) -> float:
    """Return the least seconds of a step that reads all weights, and `num_read` tokens' keys."""
    products_s = ceilings.seconds(model.num_weights * itemsize, 2 * model.num_weights * num_rows)
    return products_s + num_read * model.kv_bytes_per_token(itemsize) / ceilings.bytes_per_s


def _percent_of_floor(decodes: Sequence[tuple[float, float]]) -> Row:
    if not decodes:
        return {}
    percent = 100 * median(floor_s / step_s for step_s, floor_s in decodes)
    return {"decode_percent_of_floor": round(percent, 1)}
