"""benchmarks.peers.workloads: what is sent is exact, new in each pass, and the same for all."""

import statistics

from benchmarks.peers.workloads import WORKLOADS, OfflineWorkload, ServedWorkload


def offline(name: str) -> OfflineWorkload:
    workload = WORKLOADS[name]
    assert isinstance(workload, OfflineWorkload)
    return workload


def test_a_pass_has_the_same_prompts_for_all_and_others_than_the_next() -> None:
    w1 = offline("W1")
    assert w1.requests(3) == w1.requests(3)
    first, second = ({tuple(r.prompt_token_ids[:16]) for r in w1.requests(s)} for s in (0, 1))
    assert len(first) == len(second) == w1.num_requests
    assert not first & second


def test_lengths_are_exact() -> None:
    for name, count, prompt_len, output_len in (
        ("W1", 64, 128, 128),
        ("W4", 64, 1024, 16),
        ("W6", 1000, 16, 16),
        ("W7", 1, 128, 256),
    ):
        requests = offline(name).requests(0)
        assert len(requests) == count
        assert {(len(r.prompt_token_ids), r.output_len) for r in requests} == {
            (prompt_len, output_len)
        }


def test_w5_shares_its_first_1024_tokens_within_a_pass_only() -> None:
    w5 = offline("W5")
    prefixes = [{tuple(r.prompt_token_ids[:1024]) for r in w5.requests(seed)} for seed in (0, 1)]
    assert [len(each) for each in prefixes] == [1, 1]
    assert not prefixes[0] & prefixes[1]
    assert w5.num_cacheable_tokens() == 63 * 1024
    assert offline("W1").num_cacheable_tokens() == 0


def test_w2_draws_lengths_around_its_means() -> None:
    requests = OfflineWorkload(
        name="W2", num_requests=4000, input_len=202, output_len=179, sigma=1.0
    ).requests(0)
    # The longest are cut, which takes some 4 % of the mean.
    assert 175 < statistics.fmean(len(r.prompt_token_ids) for r in requests) < 210
    assert 155 < statistics.fmean(r.output_len for r in requests) < 187


def test_scaling_changes_the_number_of_requests_only() -> None:
    assert offline("W4").scaled(0.5).title == "32 × 1024/16"
    assert offline("W7").scaled(0.1) == offline("W7")
    served = WORKLOADS["S64"].scaled(0.01)
    assert isinstance(served, ServedWorkload)
    assert served.num_requests == served.concurrency == 64
