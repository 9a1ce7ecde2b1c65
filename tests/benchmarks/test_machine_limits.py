"""benchmarks.machine_limits: its loops are made of what the kernels multiply with today."""

import ctypes

import pytest
import torch

from benchmarks.machine_limits import compile_library
from octavo.kernels.cpu import build


@pytest.mark.slow
def test_multiply_adds_of_nothing_leave_the_sums_as_they_began() -> None:
    try:
        build.find_compiler()
    except build.BuildError:
        pytest.skip("no compiler")
    library = compile_library()
    library.set_num_threads(ctypes.c_int64(1))
    for dtype, per_lane in (("float32", 1), ("bfloat16", 2), ("int8", 4)):
        sink = torch.full((16,), torch.nan)
        getattr(library, f"multiply_add_{dtype}")(1000, ctypes.c_void_p(sink.data_ptr()))
        written = sink[~sink.isnan()]
        num_sums = getattr(library, f"{dtype}_per_count")() // per_lane // len(written)
        assert written.tolist() == [sum(range(num_sums))] * len(written)
