"""benchmarks.bench_mixed: which intervals count, and what the bar is made of."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from benchmarks.bench_mixed import Mixed, intervals_s, summarize
from benchmarks.light_client import CountedStream


def stream(*arrivals_s: float, num_tokens: Sequence[int] = ()) -> CountedStream:
    counts = list(num_tokens) or list(range(1, 1 + len(arrivals_s)))
    return cast(CountedStream, SimpleNamespace(arrivals_s=list(arrivals_s), num_tokens=counts))


def test_the_interval_that_the_long_prompt_stops_counts_whole() -> None:
    streams = [stream(0.0, 1.0, 2.0, 7.0, 8.0), stream(0.5, 1.5, 9.0, 10.0)]
    # The long prompt is sent at 2.5 and answered at 6.5.
    assert intervals_s(streams, 2.5, 6.5) == [5.0, 7.5]


def test_intervals_before_and_after_do_not_count() -> None:
    assert intervals_s([stream(0.0, 1.0, 2.0, 3.0)], 1.2, 1.8) == [1.0]


def test_tokens_that_arrive_together_share_their_time() -> None:
    together = stream(0.0, 1.0, 4.0, 5.0, 5.5, num_tokens=[1, 2, 5, 6, 6])
    assert intervals_s([together], 0.0, 9.0) == [1.0, 1.0, 1.0, 1.0, 1.0]


def test_medians_over_rounds_make_the_ratios() -> None:
    rounds = [
        Mixed(
            itl_p50_alone_ms=10.0,
            itl_p99_alone_ms=12.0,
            itl_p99_mixed_ms=p99_ms,
            itl_max_mixed_ms=40.0,
            ttft_alone_ms=1000.0,
            ttft_mixed_ms=2500.0,
            throughput_share=0.95,
        )
        for p99_ms in (15.0, 90.0, 18.0)
    ]
    result = summarize(rounds)
    assert result["itl_ratio"] == pytest.approx(1.8)
    assert result["ttft_ratio"] == pytest.approx(2.5)
