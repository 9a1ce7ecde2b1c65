"""A runner without a model: the whole protocol, real rows, and tokens that are a hash.

Each token depends on the one before it, so one that is lost or doubled changes all that follow.
"""

import time

import numpy as np
from numpy.typing import NDArray

from octavo.v1 import step_pb2

from .logprobs import prompt_logprobs, prompt_runs, sampled_logprobs
from .mock_device import MockDevice
from .pending_step import FinishedStep, PendingStep
from .plan_columns import PlanColumns
from .row_sampling import NO_LOGPROBS
from .rows import RowLimits, Rows
from .settings import WorkerSettings

_DEFAULT_MAX_MODEL_LEN = 8192
_DEFAULT_NUM_BLOCKS = 16_384
_DEFAULT_BATCHED_TOKENS = 512
_MODEL_HASH = b"octavo-mock-0001"


class MockRunner:
    """Runs plans as a model would, in a given time, with predictable tokens."""

    def __init__(self, settings: WorkerSettings, *, poison: bool = False) -> None:
        """`poison` as in Rows."""
        self._settings = settings
        limits = RowLimits(
            num_rows=settings.max_num_seqs,
            max_model_len=settings.max_model_len or _DEFAULT_MAX_MODEL_LEN,
            block_size=settings.block_size,
            num_blocks=(settings.num_gpu_blocks_override or _DEFAULT_NUM_BLOCKS,),
            vocab_size=settings.mock_vocab_size,
            max_num_batched_tokens=settings.max_num_batched_tokens or _DEFAULT_BATCHED_TOKENS,
        )
        self._rows = Rows(limits, poison=poison)
        self._device = MockDevice(settings.mock_step_s) if settings.mock_step_s else None

    def describe(self) -> step_pb2.WorkerReady:
        limits = self._rows.limits
        return step_pb2.WorkerReady(
            model_hash=_MODEL_HASH,
            dtype="mock",
            block_size=limits.block_size,
            kv_groups=[step_pb2.KVGroup(num_blocks=limits.num_blocks[0], layers=[0])],
            num_rows=limits.num_rows,
            vocab_size=limits.vocab_size,
            max_model_len=limits.max_model_len,
            eos_token_ids=[self._settings.mock_eos_token_id],
            model_path=self._settings.model,
            device="mock",
            max_num_batched_tokens=limits.max_num_batched_tokens,
        )

    def start(self, plan: step_pb2.StepPlan) -> PendingStep:
        """Run a step, on a device of its own if steps take time."""
        result = self.execute(plan)
        return self._device.launch(result) if self._device else FinishedStep(result)

    def prepare(self) -> bool:
        return False

    def execute(self, plan: step_pb2.StepPlan) -> step_pb2.StepResult:
        """Run a step in no time. Raises BadPlan, with nothing changed."""
        started_ns = time.monotonic_ns()
        columns = self._rows.apply(plan)
        staged_ns = time.monotonic_ns()
        runs = prompt_runs(self._rows, columns)
        self._rows.advance(columns)
        self._rows.fork(plan)
        result = self._sample(plan, columns)
        for run in runs:
            told = prompt_logprobs(run, self._rows, self._even_logits)
            result.prompt_logprobs.extend([told] if told is not None else [])
        result.timings.stage_ns = staged_ns - started_ns
        result.timings.sample_ns = time.monotonic_ns() - staged_ns
        return result

    def _sample(self, plan: step_pb2.StepPlan, columns: PlanColumns) -> step_pb2.StepResult:
        forked = [row.row for row in plan.forked_rows]
        sampled = np.concatenate([columns.row[columns.needs_sample], np.array(forked, np.intp)])
        token_ids = self._next_tokens(sampled)
        self._rows.append_tokens(sampled, np.array(token_ids, np.int64))
        result = step_pb2.StepResult(epoch=plan.epoch, step_id=plan.step_id)
        result.token_ids.extend(token_ids)
        wanting = np.flatnonzero(self._rows.sampling.num_logprobs[sampled] != NO_LOGPROBS)
        raw = self._even_logits(slice(0, len(wanting)))
        drawn = np.array(token_ids, np.int64)[wanting]
        result.logprobs.extend(sampled_logprobs(raw, self._rows, sampled[wanting], drawn))
        return result

    def _even_logits(self, some: slice) -> NDArray[np.float32]:
        """Return logits by which all tokens are equally probable."""
        return np.zeros((some.stop - some.start, self._settings.mock_vocab_size), np.float32)

    def _next_tokens(self, rows: NDArray[np.intp]) -> list[int]:
        """Return a token for each row: a hash of seed, position and the last token."""
        seed = np.where(
            self._rows.sampling.temperature[rows] == 0, np.uint64(0), self._rows.seed[rows]
        )
        num_tokens = self._rows.num_tokens[rows]
        positions = num_tokens.astype(np.uint64)
        last = self._rows.token_ids[rows, num_tokens - 1].astype(np.uint64)
        state = _mix(_mix(_mix(seed) ^ positions) ^ last)
        vocab_size, eos = self._settings.mock_vocab_size, self._settings.mock_eos_token_id
        token_ids = state % np.uint64(vocab_size - 1)
        token_ids += (token_ids >= eos).astype(np.uint64)
        ends = (_mix(state) >> np.uint64(11)) * 2.0**-53 < self._settings.mock_end_rate
        chosen: list[int] = np.where(ends, np.uint64(eos), token_ids).tolist()
        return chosen


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood, 2014): one step of it for each value."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
