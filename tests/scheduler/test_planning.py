"""Requests → plans: who gets how many tokens in which step."""

import pytest

from octavo.scheduler.config import GroupConfig
from octavo.scheduler.planning import MAX_SENT_TOKENS
from octavo.scheduler.scheduler import Scheduler
from octavo.v1 import scheduling_pb2, step_pb2
from tests.scheduler.driver import Driver, config
from tests.scheduler.stream_model import expected_output


def blocks(count: int) -> tuple[GroupConfig, ...]:
    return (GroupConfig(num_blocks=count),)


def work(plan: step_pb2.StepPlan | None) -> list[tuple[int, int, int]]:
    """Return (row, num_new_tokens, needs_sample) of each entry."""
    assert plan is not None
    return list(zip(plan.row, plan.num_new_tokens, plan.needs_sample, strict=True))


def added(plan: step_pb2.StepPlan | None) -> list[bytes]:
    assert plan is not None
    return [row.request_key for row in plan.added_rows]


def test_prompt_is_computed_as_the_budget_allows() -> None:
    driver = Driver(config(max_num_batched_tokens=4))
    driver.submit([1] * 10, max_tokens=2)
    assert [work(driver.step()) for _ in range(4)] == [
        [(0, 4, 0)],
        [(0, 4, 0)],
        [(0, 2, 1)],
        [(0, 1, 1)],
    ]
    assert driver.plan() is None


def test_running_sequences_go_first_and_newcomers_share_what_is_left() -> None:
    driver = Driver(config(max_num_batched_tokens=6))
    driver.submit([1, 2])
    driver.step()
    driver.submit([2] * 9)
    driver.submit([0, 1])
    assert work(driver.step()) == [(0, 1, 1), (1, 5, 0)]
    assert work(driver.step()) == [(0, 1, 1), (1, 4, 1), (2, 1, 0)]
    assert work(driver.step()) == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]


def test_long_prompts_that_cost_no_budget_are_not_all_sent_in_one_plan() -> None:
    scheduler = Scheduler(
        config(block_size=1 << 14, max_model_len=1 << 19, max_num_batched_tokens=1 << 20)
    )
    prompt = [1] * (MAX_SENT_TOKENS * 3 // 4)
    for index in range(3):
        scheduler.submit(
            scheduling_pb2.SubmitRequest(
                request_key=bytes([index] * 16),
                prompt_token_ids=prompt,
                n=1,
                seeds=[0],
                max_tokens=1,
            ),
            0,
        )
    plans = [scheduler.schedule(0), scheduler.schedule(0)]
    assert [len(plan.added_rows) for plan in plans if plan] == [2, 1]


def test_no_more_sequences_run_than_there_are_rows() -> None:
    driver = Driver(config(max_num_seqs=2))
    keys = [driver.submit([i, 1], max_tokens=3) for i in range(3)]
    assert added(driver.step()) == keys[:2]
    driver.step()
    driver.step()
    plan = driver.step()
    assert added(plan) == keys[2:]
    assert plan is not None and sorted(plan.freed_rows) == [0, 1]


def test_nothing_to_do_is_no_plan() -> None:
    driver = Driver(config())
    assert driver.plan() is None
    assert driver.scheduler.is_idle


def test_overlapped_plan_leaves_before_the_token_is_known() -> None:
    driver = Driver(config())
    key = driver.submit([1, 2], max_tokens=3)
    assert work(driver.plan()) == [(0, 2, 1)]
    assert work(driver.plan()) == [(0, 1, 1)]
    assert driver.plan() is None, "two steps are in flight"
    driver.deliver()
    assert work(driver.plan()) == [(0, 1, 1)]
    driver.deliver()
    assert driver.plan() is None, "the last token is on its way"
    driver.deliver()
    assert driver.output(key) == expected_output([1, 2], 0, 3)


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_order_is_that_of_the_policy(policy: str) -> None:
    driver = Driver(config(policy=policy, max_num_seqs=1))
    late, early = driver.submit([1], priority=5), driver.submit([2], priority=-5)
    first = late if policy == "fcfs" else early
    assert added(driver.step()) == [first]


def test_prompt_waits_until_all_its_blocks_can_be_had() -> None:
    driver = Driver(config(kv_groups=blocks(6), max_num_batched_tokens=4))
    driver.submit([1] * 9, max_tokens=1)
    driver.step()
    # 12 tokens take 3 blocks; one more is kept for the one that runs.
    second = driver.submit([2] * 12, max_tokens=1)
    assert added(driver.step()) == []
    assert added(driver.step()) == []
    assert added(driver.step()) == [second]


def test_waiting_sequence_is_not_overtaken_by_a_shorter_one() -> None:
    driver = Driver(config(kv_groups=blocks(6)))
    driver.submit([1] * 12, max_tokens=2)
    driver.step()
    driver.submit([2] * 12)
    driver.submit([0])
    assert added(driver.step()) == []


def test_sequence_that_loses_least_work_gives_its_blocks() -> None:
    driver = Driver(config(kv_groups=blocks(8), enable_prefix_caching=False))
    prompts = [[0] * 6, [1], [2] * 5]
    keys = [driver.submit(prompt, max_tokens=12) for prompt in prompts]
    # All eight blocks are used when the first one needs its fourth; the second is the smallest.
    plans = [driver.step() for _ in range(8)]
    assert [list(plan.freed_rows) for plan in plans if plan] == [[]] * 7 + [[1]]
    driver.run_to_end()
    for key, prompt in zip(keys, prompts, strict=True):
        assert driver.output(key) == expected_output(prompt, 0, 12)


def test_preempting_step_admits_nobody() -> None:
    driver = Driver(config(kv_groups=blocks(6), enable_prefix_caching=False))
    driver.submit([0] * 8, max_tokens=12)
    driver.submit([1] * 8, max_tokens=12)
    for _ in range(4):
        driver.step()
    driver.plan()
    newcomer = driver.submit([2], max_tokens=1)
    # The first one takes a fourth block, and the second, whose result is on its way, gives three.
    plan = driver.plan()
    assert plan is not None and list(plan.freed_rows) == [1]
    assert added(plan) == []
    assert driver.scheduler.load().num_free_blocks == 2, "there would have been room"
    driver.run_to_end(overlapped=True)
    assert driver.output(newcomer) == expected_output([2], 0, 1)
    driver.check_end()


def test_higher_priority_keeps_its_blocks() -> None:
    driver = Driver(config(kv_groups=blocks(4), policy="priority", enable_prefix_caching=False))
    low = driver.submit([0] * 6, max_tokens=8, priority=1)
    high = driver.submit([1] * 2, max_tokens=8, priority=0)
    driver.run_to_end()
    low_usage, high_usage = driver.requests[low].usage, driver.requests[high].usage
    assert low_usage is not None and high_usage is not None
    assert low_usage.num_preemptions > 0
    assert high_usage.num_preemptions == 0


@pytest.mark.parametrize(("num_rows", "num_blocks"), [(1, 32), (8, 4)])
def test_paused_sequence_gives_way_to_one_that_could_not_begin(
    num_rows: int, num_blocks: int
) -> None:
    driver = Driver(config(max_num_seqs=num_rows, kv_groups=blocks(num_blocks)))
    stalled = driver.submit([0] * 6)
    driver.set_window(stalled, 0, 1)
    driver.step()
    other = driver.submit([1] * 8, max_tokens=4)
    driver.run_to_end()
    assert driver.output(other) == expected_output([1] * 8, 0, 4)
    driver.set_window(stalled, 0, 8)
    driver.run_to_end()
    usage = driver.requests[stalled].usage
    assert usage is not None and usage.num_preemptions == 1
    assert driver.output(stalled) == expected_output([0] * 6, 0, 8)
    driver.check_end()


def test_paused_sequence_keeps_its_blocks_from_a_lower_priority() -> None:
    driver = Driver(config(kv_groups=blocks(5), policy="priority", enable_prefix_caching=False))
    high = driver.submit([0] * 6, priority=0)
    driver.set_window(high, 0, 1)
    low = driver.submit([1] * 6, priority=1)
    driver.run_to_end()
    assert len(driver.output(low)) < 8, "it waits for the blocks of the other"
    driver.set_window(high, 0, 8)
    driver.run_to_end()
    usage = driver.requests[high].usage
    assert usage is not None and usage.num_preemptions == 0
    assert driver.output(low) == expected_output([1] * 6, 0, 8)


def test_preempted_sequence_takes_the_token_that_was_on_its_way() -> None:
    driver = Driver(config(kv_groups=blocks(5), enable_prefix_caching=False))
    first = driver.submit([0] * 7, max_tokens=9)
    second = driver.submit([1] * 7, max_tokens=9)
    driver.plan()
    driver.plan()
    driver.deliver()
    # Both would go on to a third block, of which one is left, before the second token is known.
    driver.plan()
    assert driver.scheduler.stats.num_preemptions == 1
    driver.deliver()
    assert len(driver.output(second)) == 2
    driver.run_to_end(overlapped=True)
    assert driver.scheduler.stats.num_discarded_tokens == 0
    for key, prompt in ((first, [0] * 7), (second, [1] * 7)):
        assert driver.output(key) == expected_output(prompt, 0, 9)
    driver.check_end()


def test_preempted_sequence_resumes_with_its_prefix() -> None:
    driver = Driver(config(kv_groups=blocks(6), block_size=2))
    keys = [driver.submit([i, 1, 0], max_tokens=7) for i in range(2)]
    driver.run_to_end()
    preempted = [driver.requests[key].usage for key in keys]
    assert sum(usage.num_preemptions for usage in preempted if usage) > 0
    for i, key in enumerate(keys):
        assert driver.output(key) == expected_output([i, 1, 0], 0, 7)
    # Without the cache the 3 + 7 tokens would all be computed again.
    assert driver.scheduler.stats.num_computed_tokens < 2 * 9 + 9


@pytest.mark.parametrize("overlapped", [False, True])
@pytest.mark.parametrize("num_blocks", [5, 9, 64])
@pytest.mark.parametrize("budget", [1, 3, 32])
@pytest.mark.parametrize("caching", [False, True])
def test_tokens_do_not_depend_on_how_they_are_scheduled(
    overlapped: bool, num_blocks: int, budget: int, caching: bool
) -> None:
    driver = Driver(
        config(
            kv_groups=blocks(num_blocks),
            max_num_batched_tokens=budget,
            enable_prefix_caching=caching,
        )
    )
    prompts = [[0, 1, 2, 0, 1, 2, 0, i][: 3 + i] for i in range(5)]
    keys = [
        driver.submit([token % 3 for token in prompt], n=2, seed=3 * i)
        for i, prompt in enumerate(prompts)
    ]
    driver.run_to_end(overlapped=overlapped)
    for key in keys:
        request = driver.requests[key]
        for index, seed in enumerate(request.submit.seeds):
            expected = expected_output(
                request.submit.prompt_token_ids, seed, request.max_output_tokens
            )
            assert driver.output(key, index) == expected
    driver.check_end()
