"""octavo.histogram: what prometheus_client's own histogram shows, for the same observations."""

import random

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from octavo.histogram import Histogram

BOUNDS = (0.001, 0.25, 1, 5)


def test_a_scrape_reads_as_that_of_the_ordinary_histogram() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("fold_seconds", "Per sheet.", ("part",), buckets=BOUNDS, registry=ours)
    ordinary = prometheus_client.Histogram(
        "fold_seconds", "Per sheet.", ("part",), buckets=BOUNDS, registry=theirs
    )
    draw = random.Random(0)
    # On a bound, below the first, above the last.
    for value in (0.25, 0.0, 7.5, *(draw.expovariate(1) for _ in range(200))):
        part = draw.choice(("crease", "cut"))
        histogram.labels(part).observe(value)
        ordinary.labels(part).observe(value)
    expected = generate_latest(theirs).decode().splitlines()
    assert sorted(generate_latest(ours).decode().splitlines()) == sorted(
        line for line in expected if "_created" not in line
    )


def test_a_value_seen_often_is_one_observation() -> None:
    registry = CollectorRegistry()
    Histogram("fold_seconds", "", (), buckets=BOUNDS, registry=registry).labels().observe(0.5, 16)
    assert registry.get_sample_value("fold_seconds_count") == 16
    assert registry.get_sample_value("fold_seconds_sum") == 8
    assert registry.get_sample_value("fold_seconds_bucket", {"le": "0.25"}) == 0
    assert registry.get_sample_value("fold_seconds_bucket", {"le": "1.0"}) == 16


def test_a_block_that_fails_is_timed_too() -> None:
    registry = CollectorRegistry()
    series = Histogram("fold_seconds", "", (), buckets=BOUNDS, registry=registry).labels()
    with pytest.raises(ValueError), series.time():
        raise ValueError
    assert registry.get_sample_value("fold_seconds_count") == 1
    assert 0 < (registry.get_sample_value("fold_seconds_sum") or 0) < 60


def test_two_histograms_of_one_name_are_refused() -> None:
    registry = CollectorRegistry()
    Histogram("fold_seconds", "", (), buckets=BOUNDS, registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Histogram("fold_seconds", "", (), buckets=BOUNDS, registry=registry)
