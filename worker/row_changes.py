"""What a plan changes of the device's rows, as runs; read from the host's rows, which it changed.

Called in the order in which the rows themselves go on:

    columns = rows.apply(plan)      add_changes
    rows.advance(columns)
    rows.fork(plan)                 add_forks
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from octavo.v1 import step_pb2

from .block_tables import column, ragged_range
from .device_rows import DeviceRows
from .rows import Rows
from .run_list import RunList

Index = NDArray[np.int64]


def add_changes(
    runs: RunList, plan: step_pb2.StepPlan, rows: Rows, device_rows: DeviceRows
) -> None:
    """Add what the plan says of rows that are added, and of tables that grow or get copies."""
    added = np.array([row.row for row in plan.added_rows], np.int64)
    if len(added):
        _add_tokens(runs, added, rows, device_rows)
        _add_numbers(runs, added, rows, device_rows)
        _add_tables(runs, added, rows, device_rows)
    for changes, group in zip(plan.groups, _groups(rows, device_rows), strict=True):
        grown, num_new = column(changes.grown_row), column(changes.num_new_blocks)
        if len(grown):
            first = group.num_blocks[grown] - num_new
            # Read from the table itself: a block may have been replaced by its copy.
            blocks = group.table[np.repeat(grown, num_new), ragged_range(first, num_new)]
            runs.add_each(device_rows.places(group.on_device, grown) + first, num_new, blocks)
        for row, target in zip(changes.copy_row, changes.copy_target, strict=True):
            (places,) = np.nonzero(group.table[row, : group.num_blocks[row]] == target)
            runs.scatter(device_rows.places(group.on_device, row) + places, np.array([target]))


def add_forks(runs: RunList, plan: step_pb2.StepPlan, rows: Rows, device_rows: DeviceRows) -> None:
    """Add the rows that are forked, but for their tokens, which the device copies."""
    forked = np.array([row.row for row in plan.forked_rows], np.int64)
    if len(forked):
        _add_numbers(runs, forked, rows, device_rows)
        _add_tables(runs, forked, rows, device_rows)


def _add_tokens(runs: RunList, added: Index, rows: Rows, device_rows: DeviceRows) -> None:
    lengths = rows.num_tokens[added].astype(np.int64)
    values = [rows.token_ids[row, :length] for row, length in zip(added, lengths, strict=True)]
    places = device_rows.places(device_rows.token_ids, added)
    runs.add_each(places, lengths, np.concatenate(values))


def _add_numbers(runs: RunList, which: Index, rows: Rows, device_rows: DeviceRows) -> None:
    """Add all that is one number a row."""
    sampling = rows.sampling
    columns = (
        (device_rows.num_tokens, rows.num_tokens),
        (device_rows.num_computed_tokens, rows.num_computed_tokens),
        (device_rows.num_prompt_tokens, rows.num_prompt_tokens),
        (device_rows.sampling[0], sampling.temperature.view(np.int32)),
        (device_rows.sampling[1], sampling.top_p.view(np.int32)),
        (device_rows.sampling[2], sampling.min_p.view(np.int32)),
        (device_rows.sampling[3], sampling.top_k),
    )
    for view, values in columns:
        runs.scatter(device_rows.places(view, which), values[which])
    seeds = rows.seed[which].view(np.int32)
    runs.add_each(device_rows.places(device_rows.seed, which), np.full(len(which), 2), seeds)


def _add_tables(runs: RunList, which: Index, rows: Rows, device_rows: DeviceRows) -> None:
    """Add the whole tables of some rows."""
    for group in _groups(rows, device_rows):
        lengths = group.num_blocks[which].astype(np.int64)
        columns = ragged_range(np.zeros_like(lengths), lengths)
        values = group.table[np.repeat(which, lengths), columns]
        runs.add_each(device_rows.places(group.on_device, which), lengths, values)


class _Group(NamedTuple):
    """One KV group's tables: the host's, and where the device has them."""

    table: NDArray[np.int32]
    num_blocks: NDArray[np.int32]
    on_device: Tensor


def _groups(rows: Rows, device_rows: DeviceRows) -> Iterator[_Group]:
    return map(_Group, rows.block_tables, rows.num_blocks, device_rows.block_tables)
