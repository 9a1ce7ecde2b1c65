"""benchmarks.peers.measurement: the order of turns, ratios, and runs that do not count."""

from dataclasses import replace

import pytest

from benchmarks.peers.measurement import Run, WrongRun, check, ratio, turns
from benchmarks.peers.workloads import OfflineWorkload, ServedWorkload

WORKLOAD = OfflineWorkload(name="W", num_requests=4, input_len=8, output_len=3)
RUN = Run(duration_s=2.0, num_input_tokens=32, num_output_tokens=12, num_cached_tokens=0)


def test_two_engines_go_a_b_b_a_and_a_pass_is_one_turn_of_each() -> None:
    assert turns(["a", "b"], 2) == [
        *[("a", 0), ("b", 0), ("b", 1), ("a", 1)],
        *[("a", 2), ("b", 2), ("b", 3), ("a", 3)],
    ]


def test_every_engine_has_the_same_middle_in_time() -> None:
    order = turns(["a", "b", "c"], 3)
    places = {name: [i for i, (each, _) in enumerate(order) if each == name] for name in "abc"}
    assert len({sum(each) for each in places.values()}) == 1


def test_one_disturbed_pass_does_not_move_the_ratio() -> None:
    assert ratio([300, 300, 20, 310], [200, 200, 200, 200]) == pytest.approx(1.5)


def test_throughput_counts_the_prompts_where_they_are_the_work() -> None:
    assert RUN.tokens_per_s(WORKLOAD) == 6
    assert RUN.tokens_per_s(replace(WORKLOAD, counts_input=True)) == 22


@pytest.mark.parametrize("num_output_tokens", [11, 13])
def test_another_number_of_tokens_is_no_result(num_output_tokens: int) -> None:
    run = replace(RUN, num_output_tokens=num_output_tokens)
    with pytest.raises(WrongRun, match=f"{num_output_tokens} tokens instead of 12"):
        check(run, WORKLOAD, WORKLOAD.requests(0), "a")


def test_cached_prompts_are_no_result_beyond_what_the_workload_shares() -> None:
    requests = WORKLOAD.requests(0)
    check(RUN, WORKLOAD, requests, "a")
    check(replace(RUN, num_cached_tokens=None), WORKLOAD, requests, "a")
    with pytest.raises(WrongRun, match="5 prompt tokens were cached"):
        check(replace(RUN, num_cached_tokens=5), WORKLOAD, requests, "a")
    check(replace(RUN, num_cached_tokens=5), replace(WORKLOAD, common_len=2), requests, "a")


def test_what_was_served_must_have_all_its_tokens() -> None:
    served = ServedWorkload(name="S", concurrency=2, num_requests=4, input_len=8, output_len=3)
    check(RUN, served, [], "a")
    with pytest.raises(WrongRun):
        check(replace(RUN, num_output_tokens=9), served, [], "a")
