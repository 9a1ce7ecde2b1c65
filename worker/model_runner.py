"""Executes a step: plan → rows → forward pass → sampled tokens."""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.copy_blocks import copy_blocks
from octavo.kernels.workspace import Workspace
from octavo.v1.step_pb2 import RowError, StepPlan, StepResult, WorkerReady

from .first_touch import FirstTouch
from .input_batch import InputBatch
from .kv_cache import KvCache
from .logprobs import PromptRun, prompt_logprobs, prompt_runs, sampled_logprobs
from .models.decoder import Decoder
from .pending_step import FinishedStep
from .plan_columns import PlanColumns
from .row_sampling import NO_LOGPROBS
from .rows import Rows
from .sampled_rows import SampledRows
from .sampler import ANY_TOKEN, NO_NUMBERS, NO_TOKEN_LEFT, sample_rows

_NOT_A_NUMBER = -1


@dataclass(frozen=True, slots=True)
class _Work:
    """What a plan asks for, beside its changes; plans that say nothing new ask for the same."""

    columns: PlanColumns
    runs: list[PromptRun]
    sampled: SampledRows
    takes_best: bool
    """Whether the most probable tokens are all that is wanted of the logits."""


class ModelRunner:
    """Runs plans on one device, one after another. Only the worker's step loop calls it."""

    def __init__(
        self, decoder: Decoder, kv_cache: KvCache, rows: Rows, description: WorkerReady
    ) -> None:
        """`description` is what the scheduler is told about model, memory and limits."""
        self._decoder = decoder
        self._kv_cache = kv_cache
        self._rows = rows
        self._description = description
        self._batch = InputBatch(rows)
        self._work: _Work | None = None
        self._logits = Workspace()
        self._first_touch = FirstTouch(kv_cache.tensor)
        self._first_touch.reach(-1)

    def describe(self) -> WorkerReady:
        """Return what this worker is; identity and epoch are for the caller to add."""
        ready = WorkerReady()
        ready.CopyFrom(self._description)
        return ready

    def start(self, plan: StepPlan) -> FinishedStep:
        """Run one step, as `execute`: this thread is the device."""
        return FinishedStep(self.execute(plan))

    def prepare(self) -> bool:
        """Do nothing: all was done before the worker said that it is ready."""
        return False

    @torch.inference_mode()
    def execute(self, plan: StepPlan) -> StepResult:
        """Run one step. Raises BadPlan, with nothing changed, if the plan breaks the contract."""
        started = time.monotonic_ns()
        columns = self._rows.apply(plan)
        staged = time.monotonic_ns()
        work = self._work
        if work is None or work.columns is not columns:
            work = self._work = self._begin(plan, columns)
        copied = time.monotonic_ns()
        result = StepResult(epoch=plan.epoch, step_id=plan.step_id)
        hidden = self._forward(work)
        failed: set[int] = set()
        if work.runs:
            hidden, of_runs = hidden.tensor_split([work.sampled.num_logits])
            failed = self._add_prompt_logprobs(work.runs, of_runs, result)
        computed = time.monotonic_ns()
        if len(work.sampled.rows) > work.sampled.num_logits:
            self._rows.fork(plan)
        self._sample(work, hidden, failed, result)
        timings = result.timings
        timings.stage_ns = staged - started
        timings.copy_ns = copied - staged
        timings.forward_ns = computed - copied
        timings.sample_ns = time.monotonic_ns() - computed
        return result

    def _begin(self, plan: StepPlan, columns: PlanColumns) -> _Work:
        """Do what a plan says beside its columns, and return what is to be computed."""
        self._first_touch.reach(_last_new_block(plan))
        self._copy_blocks(plan)
        sampled = SampledRows.of(plan, columns)
        has_forks = len(sampled.rows) > sampled.num_logits
        takes_best = not has_forks and self._rows.sampling.takes_best[sampled.rows].all()
        return _Work(columns, prompt_runs(self._rows, columns), sampled, bool(takes_best))

    def _copy_blocks(self, plan: StepPlan) -> None:
        (group,) = plan.groups
        if group.copy_source:
            copy_blocks(
                self._kv_cache.tensor,
                torch.tensor(group.copy_source),
                torch.tensor(group.copy_target),
            )

    def _forward(self, work: _Work) -> Tensor:
        """Return hidden states: of the rows that sample, then of the runs."""
        if not len(work.columns.row):
            return torch.empty(0, self._decoder.config.hidden_size, dtype=self._decoder.dtype)
        step = self._batch.gather(work.columns)
        # Before the weights have swept the rows out of the caches.
        self._rows.advance(work.columns)
        if work.runs:
            # Tokens within a prompt are not sampled from, so there are indices of those that are.
            assert step.logits_indices is not None
            of_runs = torch.from_numpy(np.concatenate([run.indices for run in work.runs]))
            step = replace(step, logits_indices=torch.cat((step.logits_indices, of_runs)))
        return self._decoder.hidden_states(step)

    def _add_prompt_logprobs(
        self, runs: list[PromptRun], hidden: Tensor, result: StepResult
    ) -> set[int]:
        """Add what the runs bring; returns the rows that have no numbers, told as errors."""
        failed = set()
        counts = [run.num_positions for run in runs]
        for run, states in zip(runs, torch.split(hidden, counts), strict=True):

            def logits_of(some: slice, states: Tensor = states) -> NDArray[np.float32]:
                logits: NDArray[np.float32] = self._decoder.logits(states[some]).numpy()
                return logits

            message = prompt_logprobs(run, self._rows, logits_of)
            if message is None:
                failed.add(run.row)
                result.errors.append(RowError(row=run.row, message=NO_NUMBERS))
            else:
                result.prompt_logprobs.append(message)
        return failed

    def _sample(self, work: _Work, hidden: Tensor, failed: set[int], result: StepResult) -> None:
        """Sample and tell the tokens.

        Args:
            hidden: of the plan's rows, [work.sampled.num_logits, hidden_size].
            failed: rows that are told as errors already, and get no token.
        """
        rows = work.sampled.rows
        if not len(rows):
            return
        if work.takes_best:
            # Logits are megabytes, and nobody asks for them.
            self._append(rows, self._decoder.best_tokens(hidden), failed, result)
            return
        logits = self._decoder.logits(hidden, self._logits)
        if len(rows) > len(logits):
            logits = logits[torch.from_numpy(work.sampled.logits)]
        wanting = np.flatnonzero(self._rows.sampling.num_logprobs[rows] != NO_LOGPROBS)
        # A copy: rules change the logits themselves.
        raw = logits[torch.from_numpy(wanting)].numpy() if len(wanting) else None
        tokens = sample_rows(logits, self._rows, rows)
        self._append(rows, tokens, failed, result, logits)
        if raw is not None:
            drawn = sampled_logprobs(raw, self._rows, rows[wanting], tokens[wanting])
            result.logprobs.extend(drawn)

    def _append(
        self,
        rows: NDArray[np.intp],
        tokens: NDArray[np.int64],
        failed: set[int],
        result: StepResult,
        logits: Tensor | None = None,
    ) -> None:
        """Append and tell the rows' tokens; a row without numbers becomes an error.

        Args:
            tokens: those of failed rows are overwritten.
            logits: as the tokens were sampled, if there are any.
        """
        if failed:
            tokens[np.isin(rows, list(failed))] = _NOT_A_NUMBER
        told = tokens.tolist()
        if _NOT_A_NUMBER in told:
            for place in np.flatnonzero(tokens == _NOT_A_NUMBER).tolist():
                if (row := int(rows[place])) not in failed:
                    message = NO_NUMBERS if logits is None else _why_no_token(logits[place])
                    result.errors.append(RowError(row=row, message=message))
            told = [token for token in told if token != _NOT_A_NUMBER]
            tokens = np.where(tokens == _NOT_A_NUMBER, ANY_TOKEN, tokens)
        self._rows.append_tokens(rows, tokens)
        result.token_ids.extend(told)


def _last_new_block(plan: StepPlan) -> int:
    """Return the highest number of the blocks that rows are given; -1 without any."""
    tables = [row.block_tables[0].block_ids for row in plan.added_rows]
    return max((max(ids, default=-1) for ids in (plan.groups[0].block_ids, *tables)), default=-1)


def _why_no_token(logits: Tensor) -> str:
    """Return what the client is told of a row whose logits, as they were sampled, gave no token."""
    if logits.isneginf().all():
        return NO_TOKEN_LEFT
    return NO_NUMBERS
