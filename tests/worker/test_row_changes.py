"""Whatever a plan does, the device's rows are the host's after it."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from octavo.v1 import step_pb2
from octavo.worker.device_rows import DeviceRows
from octavo.worker.device_stream import HostStream
from octavo.worker.row_changes import add_changes, add_forks
from octavo.worker.rows import Rows
from octavo.worker.run_list import RunList
from tests.worker.plans import LIMITS, added, copy, fork, plan


class Twins:
    """Rows on the host, and on a device that is told of the changes alone."""

    def __init__(self) -> None:
        self.rows = Rows(LIMITS, poison=True)
        self.device_rows = DeviceRows(LIMITS, torch.device("cpu"), poison=True)

    def run(self, step_plan: step_pb2.StepPlan) -> None:
        changes = RunList()
        columns = self.rows.apply(step_plan)
        add_changes(changes, step_plan, self.rows, self.device_rows)
        before = self.rows.num_computed_tokens.copy()
        self.rows.advance(columns)
        self.rows.fork(step_plan)
        add_forks(changes, step_plan, self.rows, self.device_rows)
        changes.send(self.device_rows.memory, HostStream())
        self.check(before, [forked.row for forked in step_plan.forked_rows])
        # What a device does by itself.
        self.device_rows.num_computed_tokens[:] = torch.from_numpy(self.rows.num_computed_tokens)
        sampled = columns.row[columns.needs_sample].tolist()
        for row in sampled + [forked.row for forked in step_plan.forked_rows]:
            self.rows.append_tokens(np.array([row]), np.array([9]))
            self.device_rows.token_ids[row] = torch.from_numpy(self.rows.token_ids[row])
            self.device_rows.num_tokens[row] += 1

    def check(self, num_computed_before: NDArray[np.int32], forked: list[int]) -> None:
        rows, device_rows = self.rows, self.device_rows
        for row in np.flatnonzero(rows.is_used).tolist():
            num_blocks, num_tokens = rows.num_blocks[0][row], rows.num_tokens[row]
            table = device_rows.block_tables[0][row, :num_blocks]
            assert table.tolist() == rows.block_tables[0][row, :num_blocks].tolist()
            assert device_rows.num_tokens[row] == num_tokens
            assert device_rows.num_prompt_tokens[row] == rows.num_prompt_tokens[row]
            assert int(device_rows.seed[row].view(torch.int64)) == rows.seed[row].view(np.int64)
            sampling = rows.sampling
            reals = device_rows.sampling[:3, row].view(torch.float32).tolist()
            assert reals == [
                each[row] for each in (sampling.temperature, sampling.top_p, sampling.min_p)
            ]
            assert device_rows.sampling[3, row] == sampling.top_k[row]
            if row not in forked:
                tokens = device_rows.token_ids[row, :num_tokens].tolist()
                assert tokens == rows.token_ids[row, :num_tokens].tolist()
                assert device_rows.num_computed_tokens[row] == num_computed_before[row]


@pytest.fixture
def twins() -> Twins:
    twins = Twins()
    first = plan(1, [(0, 5, 1), (1, 2, 1)])
    first.added_rows.extend(
        [added(0, [1, 2, 3, 4, 5], [0, 1]), added(1, [6, 7], [2], seed=2**64 - 3)]
    )
    first.added_rows[0].sampling.temperature = 0.7
    first.added_rows[0].sampling.top_k = 11
    first.added_rows[1].sampling.min_p = 0.25
    twins.run(first)
    return twins


def test_rows_that_are_added_grow_and_go(twins: Twins) -> None:
    twins.run(plan(2, [(0, 1, 1), (1, 1, 1)]))
    twins.run(plan(3, [(0, 1, 1), (1, 1, 1)]))
    twins.run(plan(4, [(0, 1, 1), (1, 1, 1)], growth=[(1, [5]), (0, [])]))
    again = plan(5, [(0, 2, 1), (1, 1, 1)], growth=[(0, [1])])
    again.freed_rows.append(0)
    again.added_rows.append(added(0, [11, 12, 13, 14, 15, 16], [7], num_computed_tokens=4))
    twins.run(again)


def test_a_fork_has_all_of_its_source_but_the_seed(twins: Twins) -> None:
    forking = plan(2, [(1, 1, 1)])
    fork(forking, 1, 2, 1)
    forking.forked_rows[0].seed = 99
    twins.run(forking)
    copying = plan(3, [(1, 1, 1), (2, 1, 1)])
    copy(copying, 1, 2, 6)
    twins.run(copying)
    assert twins.device_rows.block_tables[0][1, 0] == 6


def test_a_block_may_be_given_and_replaced_by_a_copy_in_one_plan(twins: Twins) -> None:
    sealing = plan(2, [(0, 1, 1)])
    twins.run(sealing)
    both = plan(3, [(3, 1, 1)])
    both.freed_rows.append(0)
    both.added_rows.append(added(3, [1, 2, 3, 4, 5, 6], [0, 1], num_computed_tokens=5))
    copy(both, 3, 1, 4)
    twins.run(both)
    assert twins.device_rows.block_tables[0][3, :2].tolist() == [0, 4]


def test_nothing_to_change_is_nothing_to_send() -> None:
    twins, changes = Twins(), RunList()
    add_changes(changes, plan(1), twins.rows, twins.device_rows)
    add_forks(changes, plan(1), twins.rows, twins.device_rows)
    before = twins.device_rows.memory.clone()
    changes.send(twins.device_rows.memory, HostStream())
    assert torch.equal(twins.device_rows.memory, before)
