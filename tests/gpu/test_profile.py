"""benchmarks.gpu_check: the GPU's own records say which kernels a step takes its time for."""

import pytest

from benchmarks.gpu_check.engine import profile_rows
from benchmarks.gpu_check.models import ModelShape
from benchmarks.gpu_check.workloads import Case, same

pytestmark = pytest.mark.gpu


def test_kernels_of_steps_that_decode_are_told_and_none_of_prompts(cuda: str) -> None:
    tiny = ModelShape("tiny", 64, 2, 4, 2, 16, 96, 200, True)
    options = {"kv_cache_memory_bytes": 10_000_000}
    rows = list(profile_rows((1e12, 1e15), 120, Case(tiny, [same(2, 20, 8)], options)))
    told = " ".join(row["kernel"] for row in rows)
    assert "decode_attention" in told and "nothing" in told and "prefill_attention" not in told
    assert all(row["calls"] > 0 for row in rows) and sum(row["percent"] for row in rows) > 50
