"""benchmarks.gpu_check: of the GPU's own records, those of steps that decode are told."""

import pytest

from benchmarks.gpu_check.device_records import Work, busy_us, decode_times


@pytest.mark.parametrize(
    ("spans", "busy"),
    [
        ([(5.0, 7.0)], 2.0),
        ([(0.0, 1.0), (3.0, 4.0)], 2.0),
        ([(0.0, 3.0), (1.0, 2.0), (2.0, 4.0)], 4.0),
        ([(0.0, 4.0), (1.0, 2.0), (8.0, 10.0)], 6.0),
    ],
)
def test_busy_is_what_some_work_covers(spans: list[tuple[float, float]], busy: float) -> None:
    assert busy_us([Work("", begun, ended) for begun, ended in spans]) == pytest.approx(busy)


def test_kernels_are_told_from_the_last_prompt_on_the_largest_share_first() -> None:
    works = [
        Work("_prefill_attention_kernel", 10, 90),
        Work("gemm", 0, 10),
        Work("gemm", 100, 130),
        Work("_decode_attention_kernel", 140, 200),
        Work("gemm", 200, 220),
    ]
    assert decode_times(works) == [
        {"kernel": "_decode_attention_kernel", "percent": 50.0, "calls": 1, "us": 60.0},
        {"kernel": "gemm", "percent": 41.7, "calls": 2, "us": 25.0},
        {"kernel": "nothing", "percent": 8.3, "calls": 1, "us": 10.0},
    ]


def test_where_nothing_decodes_nothing_is_told() -> None:
    assert decode_times([]) == decode_times([Work("_prefill_attention_kernel", 0, 1)]) == []
