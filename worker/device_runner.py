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
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from octavo.kernels.copy_blocks import copy_blocks
from octavo.kernels.logprobs import logprobs
from octavo.v1.step_pb2 import StepPlan, StepResult, WorkerReady

from .cuda_graphs import GraphRecorder
from .device_batch import DeviceBatch
from .device_forward import DeviceForward, FittedStep, ForwardOutput
from .device_kv_cache import DeviceKvCache
from .device_logprobs import PromptLogprobs
from .device_rows import DeviceRows
from .device_sampler import DeviceSampler
from .device_step import DeviceStep
from .device_stream import DeviceStream
from .logprobs import LOGITS_SLICE, PromptRun, prompt_runs
from .models.decoder import Decoder
from .row_changes import add_changes, add_forks
from .rows import PlanColumns, Rows
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
        self._decoder = decoder
        self._kv_cache = kv_cache
        self._rows = rows
        self._device_rows = device_rows
        self._description = description
        self._stream = stream
        self._batch = DeviceBatch(rows.limits, device_rows)
        self._sampler = DeviceSampler(rows, device_rows, stream)
        draw = self._sampler.draw
        self._forward = DeviceForward(decoder, self._batch, stream, draw, recorder)

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
        result = StepResult(epoch=plan.epoch, step_id=plan.step_id)
        stage_ns = time.monotonic_ns() - started
        result.timings.stage_ns = result.timings.overlapped_ns = stage_ns
        computed = self._forward.run(step, sampled.num_logits)
        prompts = self._prompt_logprobs(runs, computed.hidden)
        has_logits = self._stream.mark()
        wanting = self._sampler.wanting(sampled)
        positions = self._sampler.positions(len(sampled.rows))
        logits, drawn = self._with_forks(computed, sampled)
        output = self._sampler.sample(logits, sampled, wanting, drawn)
        self._batch.append(computed.num_computed, positions, output.token_ids)
        self._rows.append_unknown_tokens(sampled.rows)
        marks = (begun, has_logits, self._stream.mark())
        output = replace(output, prompt_logprobs=prompts)
        return DeviceStep(result, sampled, wanting, output, marks, self._stream)

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
            ids = np.array([*group.copy_source, *group.copy_target], np.int32)
            sources, targets = self._stream.upload(ids).long().chunk(2)
            copy_blocks(self._kv_cache.planes, sources, targets)

    def _with_forks(
        self, computed: ForwardOutput, sampled: SampledRows
    ) -> tuple[Tensor, Tensor | None]:
        """Return logits for all sampled rows, and the tokens drawn from them if they are.

        Those that are forked draw from their source's logits.
        """
        if len(sampled.rows) == sampled.num_logits:
            return computed.logits, computed.drawn
        places = self._stream.upload(sampled.logits.astype(np.int32))
        return computed.logits.index_select(0, places), None

    def _prompt_logprobs(
        self, runs: Sequence[PromptRun], hidden: Tensor
    ) -> tuple[PromptLogprobs, ...]:
        counts = [run.num_positions for run in runs]
        return tuple(
            self._of_run(run, states)
            for run, states in zip(runs, torch.split(hidden, counts), strict=True)
        )

    def _of_run(self, run: PromptRun, hidden: Tensor) -> PromptLogprobs:
        where = slice(run.first_position, run.first_position + run.num_positions)
        num_top = int(self._rows.sampling.num_prompt_logprobs[run.row])
        token_ids = self._device_rows.token_ids[run.row, where].long()
        parts = zip(*(torch.split(each, LOGITS_SLICE) for each in (hidden, token_ids)), strict=True)
        return PromptLogprobs(
            run,
            self._rows.token_ids[run.row, where].copy(),
            num_top,
            [logprobs(self._decoder.logits(some), ids, num_top) for some, ids in parts],
        )
