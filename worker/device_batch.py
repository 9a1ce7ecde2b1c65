"""The input of a forward pass on a device: memory that every step uses again, filled by kernels."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.kernels.append_tokens import append_tokens
from octavo.kernels.paged_tokens import PagedTokens
from octavo.kernels.step_input import step_input

from .cuda_graphs import NO_ROW
from .device_rows import DeviceRows
from .device_stream import DeviceStream
from .models.decoder import StepInput
from .plan_columns import PlanColumns
from .rows import RowLimits
from .run_list import RunList
from .sampled_rows import SampledRows

_GROUP = 0


class DeviceBatch:
    """What input_batch.py gathers on the host, gathered on the device.

    It lies at the same addresses in each step, as a CUDA graph wants its input.
    """

    def __init__(self, limits: RowLimits, rows: DeviceRows) -> None:
        device, num_tokens = rows.memory.device, max(limits.max_num_batched_tokens, limits.num_rows)
        self.max_num_rows = limits.num_rows
        self.max_num_batched_tokens = limits.max_num_batched_tokens
        self._block_size = limits.block_size
        self._rows = rows
        self._input_ids = torch.zeros(num_tokens, dtype=torch.int32, device=device)
        self._positions = torch.zeros(num_tokens, dtype=torch.int64, device=device)
        self._slot_mapping = torch.zeros(num_tokens, dtype=torch.int64, device=device)
        # One more than there are rows: what fills a step up is none.
        tables_shape = (limits.num_rows + 1, rows.block_tables[_GROUP].shape[1])
        self._seq_lens = torch.zeros(limits.num_rows + 1, dtype=torch.int32, device=device)
        self._block_tables = torch.zeros(tables_shape, dtype=torch.int32, device=device)

    def add_columns(self, runs: RunList, columns: PlanColumns, wanted: NDArray[np.int64]) -> None:
        """Add what a step does: which rows, how many tokens of each, which of them are wanted."""
        ends = np.cumsum(columns.num_new_tokens)
        self._add(runs, self._rows.step_rows, columns.row)
        self._add(runs, self._rows.query_start_loc, np.concatenate(([0], ends)))
        self._add(runs, self._rows.wanted_tokens, wanted)

    def add_sampled(self, runs: RunList, sampled: SampledRows) -> None:
        """Add who gets a token in the step."""
        self._add(runs, self._rows.sampled_rows, sampled.rows)
        self._add(runs, self._rows.source_rows, sampled.sources)

    def send(self, columns: PlanColumns, wanted: NDArray[np.int64], stream: DeviceStream) -> None:
        """Put a part of a step in the place of the step."""
        runs = RunList()
        self.add_columns(runs, columns, wanted)
        runs.send(self._rows.memory, stream)

    def send_no_rows(self, stream: DeviceStream) -> None:
        """Put rows that are none in the place of a step, one token each."""
        size = self.max_num_rows
        ones = np.ones(size, np.int64)
        none = PlanColumns(np.full(size, NO_ROW), ones, ones.astype(np.bool_))
        # Whose parameters they draw with does not matter, but there have to be some.
        any_row = np.zeros(size, np.intp)
        runs = RunList()
        self.add_columns(runs, none, np.arange(size))
        self.add_sampled(runs, SampledRows(any_row, any_row, any_row, size))
        runs.send(self._rows.memory, stream)

    def no_tokens(self, num_tokens: int, stream: DeviceStream) -> StepInput:
        """Put tokens of no row in the place of a step, and return it."""
        none = PlanColumns(np.array([NO_ROW]), np.array([num_tokens]), np.array([False]))
        self.send(none, np.empty(0, np.int64), stream)
        return self.gather(none)

    def gather(self, columns: PlanColumns, num_wanted: int | None = None) -> StepInput:
        """Return the input of the step whose columns are on the device; None wants all tokens."""
        rows, num_requests = self._rows, len(columns.row)
        num_tokens = int(columns.num_new_tokens.sum())
        step = StepInput(
            input_ids=self._input_ids[:num_tokens],
            tokens=PagedTokens(
                positions=self._positions[:num_tokens],
                slot_mapping=self._slot_mapping[:num_tokens],
                block_tables=self._block_tables[:num_requests],
                seq_lens=self._seq_lens[:num_requests],
                query_start_loc=rows.query_start_loc[: num_requests + 1],
                num_decodes=_num_decodes(columns),
            ),
            logits_indices=None if num_wanted is None else rows.wanted_tokens[:num_wanted],
        )
        step_input(
            rows.step_rows[:num_requests],
            rows.token_ids,
            rows.num_computed_tokens,
            rows.block_tables[_GROUP],
            self._block_size,
            step.input_ids,
            step.tokens,
        )
        return step

    def append(self, num_computed: int, positions: Tensor, sampled: Tensor) -> None:
        """Count what the first rows of the step have computed, and give those sampled their tokens.

        Args:
            positions, sampled: as append_tokens has them.
        """
        rows = self._rows
        append_tokens(
            rows.step_rows[:num_computed],
            self._seq_lens[:num_computed],
            rows.sampled_rows[: len(sampled)],
            rows.source_rows[: len(sampled)],
            positions,
            sampled,
            rows.token_ids,
            rows.num_tokens,
            rows.num_computed_tokens,
        )

    def count_computed(self, num_rows: int) -> None:
        """Count what the first rows of the step have computed."""
        nothing = self._positions[:0]
        self.append(num_rows, nothing, nothing)

    def tell_computed(
        self, rows: NDArray[np.intp], num_computed: NDArray[np.int32], stream: DeviceStream
    ) -> None:
        """Tell the device how far rows are computed, whatever it has counted."""
        runs = RunList()
        runs.scatter(DeviceRows.places(self._rows.num_computed_tokens, rows), num_computed)
        runs.send(self._rows.memory, stream)

    @property
    def device(self) -> torch.device:
        return self._positions.device

    def no_states(self, hidden_size: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(0, hidden_size, dtype=dtype, device=self._positions.device)

    @staticmethod
    def _add(runs: RunList, view: Tensor, values: NDArray[np.integer]) -> None:
        runs.add(int(view.storage_offset()), values)


def _num_decodes(columns: PlanColumns) -> int:
    """Count the rows in front that compute one token; plans list those that decode first."""
    is_longer = columns.num_new_tokens > 1
    return int(np.argmax(is_longer)) if is_longer.any() else len(is_longer)
