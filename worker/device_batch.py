"""The input of a forward pass on a device: memory that every step uses again, filled by kernels."""

import numpy as np
import torch

from octavo.kernels.paged_tokens import PagedTokens
from octavo.kernels.step_input import step_input

from .device_rows import DeviceRows
from .models.decoder import StepInput
from .rows import PlanColumns, RowLimits
from .run_list import RunList
from .sampled_rows import SampledRows

_GROUP = 0


class DeviceBatch:
    """What input_batch.py gathers on the host, gathered on the device.

    It lies at the same addresses in each step, as a CUDA graph wants its input.

    Attributes:
        seq_lens: int32 [num_rows]; of the step that was gathered last, tokens in the cache.
    """

    def __init__(self, limits: RowLimits, rows: DeviceRows) -> None:
        device, num_tokens = rows.memory.device, limits.max_num_batched_tokens
        self._limits = limits
        self._rows = rows
        self._input_ids = torch.zeros(num_tokens, dtype=torch.int32, device=device)
        self._positions = torch.zeros(num_tokens, dtype=torch.int64, device=device)
        self._slot_mapping = torch.zeros(num_tokens, dtype=torch.int64, device=device)
        self.seq_lens = torch.zeros(limits.num_rows, dtype=torch.int32, device=device)
        self._block_tables = torch.zeros_like(rows.block_tables[_GROUP])

    def add_columns(self, runs: RunList, columns: PlanColumns, sampled: SampledRows) -> None:
        """Add what the step does: which rows, how many tokens of each, and who gets one."""
        ends = np.cumsum(columns.num_new_tokens)
        for view, values in (
            (self._rows.step_rows, columns.row),
            (self._rows.query_start_loc, np.concatenate(([0], ends))),
            (self._rows.logits_indices, ends[columns.needs_sample] - 1),
            (self._rows.sampled_rows, sampled.rows),
            (self._rows.source_rows, sampled.sources),
        ):
            runs.add(view.storage_offset(), values)

    def gather(self, columns: PlanColumns, num_logits: int) -> StepInput:
        """Return the input of the step whose columns are on the device."""
        rows, num_requests = self._rows, len(columns.row)
        num_tokens = int(columns.num_new_tokens.sum())
        step = StepInput(
            input_ids=self._input_ids[:num_tokens],
            tokens=PagedTokens(
                positions=self._positions[:num_tokens],
                slot_mapping=self._slot_mapping[:num_tokens],
                block_tables=self._block_tables[:num_requests],
                seq_lens=self.seq_lens[:num_requests],
                query_start_loc=rows.query_start_loc[: num_requests + 1],
                num_decodes=_num_decodes(columns),
            ),
            logits_indices=rows.logits_indices[:num_logits],
        )
        step_input(
            rows.step_rows[:num_requests],
            rows.token_ids,
            rows.num_computed_tokens,
            rows.block_tables[_GROUP],
            self._limits.block_size,
            step.input_ids,
            step.tokens,
        )
        return step


def _num_decodes(columns: PlanColumns) -> int:
    """Count the rows in front that compute one token; plans list those that decode first."""
    is_longer = columns.num_new_tokens > 1
    return int(np.argmax(is_longer)) if is_longer.any() else len(is_longer)
