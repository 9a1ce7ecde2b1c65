"""benchmarks.gpu_check: what it compares with runs; on a CPU that would take half a minute."""

import pytest

from benchmarks.gpu_check.engine import peer_rows
from benchmarks.gpu_check.models import ModelShape
from benchmarks.gpu_check.workloads import Case, same

pytestmark = pytest.mark.gpu


def test_the_peer_answers_at_the_lengths_asked_for(cuda: str) -> None:
    tiny = ModelShape("tiny", 64, 2, 4, 2, 16, 96, 200, True)
    (row,) = peer_rows((1e12, 1e15), 60, Case(tiny, [same(2, 5, 3)]))
    assert row["engine"] == "transformers generate_batch" and row["output_tok_s"] > 0
