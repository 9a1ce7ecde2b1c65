"""Runs arrive where they belong, in one copy, however many and however long they are."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.worker.device_stream import HostStream
from octavo.worker.run_list import RunList


class CountingStream(HostStream):
    num_uploads = 0

    def upload(self, values: NDArray[np.int32]) -> torch.Tensor:
        self.num_uploads += 1
        return super().upload(values)


@given(st.lists(st.lists(st.sampled_from([0, 1, 3, 4096, 4097, 9000]), max_size=4), max_size=4))
def test_any_runs_are_written_by_one_copy(calls: list[list[int]]) -> None:
    size = sum(map(sum, calls)) + sum(map(len, calls))
    expected = np.full(size, -7, np.int32)
    runs, end, stream = RunList(), 0, CountingStream()
    for lengths in calls:
        destinations, values = [], []
        for length in lengths:
            numbers = np.random.default_rng(end).integers(0, 2**31, length)
            expected[end : end + length] = numbers
            destinations.append(end)
            values.append(numbers)
            # What lies between two runs stays as it is.
            end += length + 1
        if lengths:
            runs.add_each(np.array(destinations), np.array(lengths), np.concatenate(values))
    memory = torch.full((size,), -7, dtype=torch.int32)
    runs.send(memory, stream)
    assert memory.tolist() == expected.tolist()
    assert stream.num_uploads == int(any(calls))


def test_single_numbers_are_scattered() -> None:
    runs, memory = RunList(), torch.zeros(9, dtype=torch.int32)
    runs.scatter(np.array([7, 2]), np.array([5, 6], np.int32))
    runs.add(3, np.array([1, 2], np.int32))
    runs.send(memory, HostStream())
    assert memory.tolist() == [0, 0, 6, 1, 2, 0, 0, 5, 0]
