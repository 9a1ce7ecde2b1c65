"""Executes steps on a device: whatever a step needs is on it, and no call here waits for it.

    start(plan)      the host's rows check the plan; what it changes goes out as one copy;
                     kernels are queued, from the rows on the device to the rows on the device
    step.result()    waits until the numbers to be told have come back

So a step is queued while the one before it runs, and the token that this one samples is the input
of the next without the host having seen it.

Idea: vLLM's model runner v2 and its asynchronous scheduling (https://github.com/vllm-project/vllm).
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import structlog
import torch

from octavo.kernels.copy_blocks import copy_blocks
from octavo.log_limit import LogLimit
from octavo.v1.step_pb2 import StepPlan, StepResult, WorkerReady

from .cuda_graphs import GraphRecorder
from .device_batch import DeviceBatch
from .device_forward import DeviceForward, FittedStep, ForwardOutput
from .device_head import NO_MEMORY, DeviceHead
from .device_kv_cache import DeviceKvCache
from .device_rows import DeviceRows
from .device_sampler import DeviceSampler
from .device_step import DeviceStep, StepOutput
from .device_stream import DeviceStream
from .logprobs import prompt_runs
from .models.decoder import Decoder
from .plan_columns import PlanColumns
from .row_changes import add_changes, add_forks
from .rows import Rows
from .run_list import RunList
from .sampled_rows import SampledRows


class DeviceRunner:
    """Runs plans on one device, in the order they are started."""

    def __init__(
        self,
        decoder: Decoder,
        kv_cache: DeviceKvCache,
        rows: Rows,
        device_rows: DeviceRows,
        description: WorkerReady,
        stream: DeviceStream,
        recorder: GraphRecorder | None = None,
    ) -> None:
        """Take the memory that steps share; with a `recorder`, record a graph of decode steps.

        `description` is what the scheduler is told about model, memory and limits.
        """
        self._kv_cache = kv_cache
        self._rows = rows
        self._device_rows = device_rows
        self._description = description
        self._stream = stream
        self._batch = DeviceBatch(rows.limits, device_rows)
        self._sampler = DeviceSampler(rows, device_rows, stream)
        draw = self._sampler.draw_all
        self._forward = DeviceForward(decoder, self._batch, stream, draw, recorder)
        self._head = DeviceHead(decoder, rows, device_rows, self._sampler, stream)
        self._log_limit = LogLimit()

    def describe(self) -> WorkerReady:
        """Return what this worker is; identity and epoch are for the caller to add."""
        ready = WorkerReady()
        ready.CopyFrom(self._description)
        return ready

    @property
    def kv_cache_bytes(self) -> int:
        return self._kv_cache.nbytes

    def execute(self, plan: StepPlan) -> StepResult:
        """Run one step, and wait for it."""
        return self.start(plan).result()

    @torch.inference_mode()
    def prepare(self) -> bool:
        """Record a graph that steps will want; return whether others are missing."""
        return self._forward.prepare()

    def captures(self, recorder: GraphRecorder) -> Sequence[Sequence[Callable[[], object]]]:
        """Return what captures the graphs of each kind, the largest first; no step runs on them."""
        return self._forward.captures(recorder)

    @torch.inference_mode()
    def start(self, plan: StepPlan) -> DeviceStep:
        """Queue one step. Raises BadPlan, with nothing changed, if it breaks the contract."""
        started = time.monotonic_ns()
        columns = self._rows.apply(plan)
        runs = prompt_runs(self._rows, columns)
        sampled = SampledRows.of(plan, columns)
        step = self._forward.fit(columns, runs)
        changes = self._changes(plan, columns, step, sampled)
        begun = self._stream.mark()
        changes.send(self._device_rows.memory, self._stream)
        self._copy_blocks(plan)
        stage_ns = time.monotonic_ns() - started
        result = StepResult(epoch=plan.epoch, step_id=plan.step_id)
        result.timings.stage_ns = result.timings.overlapped_ns = stage_ns
        computed = self._computed(step)
        has_logits = self._stream.mark()
        if computed is None:
            output, num_computed = self._fail(columns, sampled), 0
        else:
            output, num_computed = self._head.answer(computed, runs, sampled), computed.num_computed
        some = slice(0, len(sampled.rows))
        positions, token_ids = self._sampler.positions[some], self._sampler.token_ids[some]
        self._batch.append(num_computed, positions, token_ids)
        self._rows.append_unknown_tokens(sampled.rows)
        marks = (begun, has_logits, self._stream.mark())
        return DeviceStep(result, output, marks, self._stream)

    def _computed(self, step: FittedStep) -> ForwardOutput | None:
        """Queue the forward pass; None if it finds no memory, not for a single token."""
        try:
            return self._forward.run(step)
        except torch.OutOfMemoryError as error:
            if self._log_limit.allows("memory"):
                structlog.get_logger().warning(
                    "no memory for a step: its requests fail. End other programs on the GPU, or"
                    " lower --gpu-memory-utilization",
                    error=str(error),
                )
        torch.cuda.empty_cache()
        return None

    def _fail(self, columns: PlanColumns, sampled: SampledRows) -> StepOutput:
        """Give up a step: its rows go on from where plans that are under way count on."""
        computed = self._rows.num_computed_tokens[columns.row]
        self._batch.tell_computed(columns.row, computed, self._stream)
        self._sampler.place(len(sampled.rows))
        self._sampler.draw_none(slice(0, len(sampled.rows)))
        rows = [*columns.row.tolist(), *sampled.rows.tolist()]
        return StepOutput((), (), dict.fromkeys(rows, NO_MEMORY))

    def _changes(
        self, plan: StepPlan, columns: PlanColumns, step: FittedStep, sampled: SampledRows
    ) -> RunList:
        """Advance the host's rows to where they are after the step, and say what that changes."""
        changes = RunList()
        add_changes(changes, plan, self._rows, self._device_rows)
        self._batch.add_columns(changes, step.sent, step.wanted)
        self._batch.add_sampled(changes, sampled)
        self._rows.advance(columns)
        self._rows.fork(plan)
        add_forks(changes, plan, self._rows, self._device_rows)
        return changes

    def _copy_blocks(self, plan: StepPlan) -> None:
        (group,) = plan.groups
        if group.copy_source:
            ids = np.array([*group.copy_source, *group.copy_target], np.int64)
            on_device = self._stream.upload(ids.view(np.int32)).view(torch.int64)
            sources, targets = on_device.chunk(2)
            copy_blocks(self._kv_cache.planes, sources, targets)
