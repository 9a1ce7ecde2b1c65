"""How kernels whose programs hold rows whole are launched."""

from typing import NamedTuple

import triton

MAX_DIM = 32768


class RowLaunch(NamedTuple):
    """Rows of a program, columns that it has room for, and its warps."""

    rows: int
    block: int
    num_warps: int


def launch_config(dim: int) -> RowLaunch:
    """16 numbers a thread, two loads of 16 bytes under way, or 32 of the longest rows.

    Not yet measured.
    """
    assert 0 < dim <= MAX_DIM, dim
    block = max(512, triton.next_power_of_2(dim))
    rows = max(1, 2048 // block)
    return RowLaunch(rows, block, min(32, rows * block // 512))
