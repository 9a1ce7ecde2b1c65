"""benchmarks.gpu_check: figures of steps follow from their plans, and from when they ended."""

import pytest

from benchmarks.gpu_check.models import ModelShape
from benchmarks.gpu_check.probes import Ceilings
from benchmarks.gpu_check.step_records import RecordedRunner, StepRecord, step_figures
from octavo.v1.step_pb2 import (
    AddedRow,
    BlockTable,
    GroupBlocks,
    StepPlan,
    StepResult,
    StepTimings,
    WorkerReady,
)
from octavo.worker.pending_step import FinishedStep, PendingStep

# 1000 weights, and 16 bytes of keys and values a token.
MODEL = ModelShape("tiny", 10, 1, 2, 1, 4, 20, 16, True)
CEILINGS = Ceilings(bytes_per_s=1000.0, flops_per_s=1e9)
ROWS = [
    AddedRow(row=0, token_ids=[1] * 5, block_tables=[BlockTable(block_ids=[0])]),
    AddedRow(
        row=1,
        token_ids=[1] * 9,
        num_computed_tokens=4,
        block_tables=[BlockTable(block_ids=[1, 2, 3])],
    ),
]
PROMPTS = StepPlan(added_rows=ROWS, row=[0, 1], num_new_tokens=[5, 5], groups=[GroupBlocks()])
DECODE = StepPlan(
    row=[0, 1],
    num_new_tokens=[1, 1],
    groups=[GroupBlocks(grown_row=[0], num_new_blocks=[1], block_ids=[4])],
)
END = StepPlan(freed_rows=[0, 1])


class Pending:
    """A step that a device is still busy with."""

    def result(self) -> StepResult:
        return StepResult(timings=StepTimings(copy_ns=1, forward_ns=20, sample_ns=300))


class Runner:
    def __init__(self, step: PendingStep) -> None:
        self.step = step

    def describe(self) -> WorkerReady:
        return WorkerReady(block_size=4)

    def prepare(self) -> bool:
        return True

    def start(self, plan: StepPlan) -> PendingStep:
        return self.step


def test_a_step_counts_from_the_end_of_the_one_before_it() -> None:
    records = [
        StepRecord(PROMPTS, 0.0, 10.0, waited_s=9.0, device_s=8.0),
        StepRecord(DECODE, 1.0, 20.0, waited_s=8.0, device_s=9.0),
        StepRecord(END, 19.0, 20.0, waited_s=0.0, device_s=0.0),
        StepRecord(DECODE, 20.0),
    ]
    assert MODEL.num_weights == 1000 and MODEL.kv_bytes_per_token(2) == 16
    figures = step_figures(records, MODEL, CEILINGS, itemsize=2, block_size=4)
    assert figures["num_steps"] == 3
    assert figures["step_ms_p50"] == figures["step_ms_p99"] == figures["decode_ms_p50"] == 10_000
    # 2,000 bytes of weights, and 16 of each of 6 and 10 tokens: 2.256 of 10 seconds.
    assert figures["decode_percent_of_floor"] == pytest.approx(22.6)
    assert figures["gpu_idle_percent"] == pytest.approx(15)
    assert figures["host_us"] == pytest.approx(1e6)
    # 14 tokens in 4 blocks, then 16 in 5, then none.
    assert figures["kv_waste_percent"] == pytest.approx(100 * (1 - 30 / 36), abs=0.01)


def test_a_step_that_a_device_has_is_noted_when_its_result_is_there() -> None:
    runner = RecordedRunner(Runner(Pending()))
    step = runner.start(PROMPTS)
    (record,) = runner.records
    assert not isinstance(step, FinishedStep) and record.ended_s == 0
    step.result()
    assert record.plan is PROMPTS and record.ended_s >= record.started_s
    assert record.device_s == pytest.approx(321e-9)


def test_a_step_that_is_done_when_it_is_started_stays_one() -> None:
    finished = StepResult(step_id=7)
    runner = RecordedRunner(Runner(FinishedStep(finished)))
    step = runner.start(PROMPTS)
    assert isinstance(step, FinishedStep) and step.result() is finished
    assert runner.records[0].ended_s > 0
    assert runner.prepare() and runner.describe().block_size == 4
