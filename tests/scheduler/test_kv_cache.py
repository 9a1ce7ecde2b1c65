"""Which blocks a sequence gets: prefix hits, forks, copies on write, and what is told as sealed."""

from octavo.scheduler.config import GroupConfig, SchedulerConfig
from octavo.scheduler.kv_cache import KVCacheManager
from octavo.scheduler.planned_step import PlannedStep
from octavo.scheduler.request import Sequence
from octavo.scheduler.submission import build_request
from octavo.v1 import scheduling_pb2, step_pb2
from tests.scheduler.driver import Driver, config
from tests.scheduler.stream_model import expected_output

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 2, 1]
"""Two blocks of four and half a third."""


def planned(plan: step_pb2.StepPlan | None) -> step_pb2.StepPlan:
    assert plan is not None
    return plan


def finished(driver: Driver, prompt: list[int], **options: int) -> bytes:
    """Submit a request and run it to its end; returns its key."""
    key = driver.submit(prompt, max_tokens=1, **options)  # type: ignore[arg-type]
    driver.run_to_end()
    return key


def sequences(limits: SchedulerConfig, n: int) -> list[Sequence]:
    """Return the sequences of a request with a prompt of two tokens."""
    submit = scheduling_pb2.SubmitRequest(
        request_key=bytes(16), prompt_token_ids=[1, 2], n=n, seeds=range(n), max_tokens=8
    )
    return build_request(submit, limits, arrival=1, now_ns=0).sequences


def num_cached(driver: Driver, key: bytes) -> int:
    usage = driver.requests[key].usage
    assert usage is not None
    return usage.num_cached_tokens


def test_second_prompt_begins_where_it_differs() -> None:
    driver = Driver(config())
    finished(driver, PROMPT)
    assert num_cached(driver, finished(driver, [*PROMPT[:8], 2, 2, 2])) == 8
    assert num_cached(driver, finished(driver, [*PROMPT[:7], 2, 2, 2])) == 4
    assert num_cached(driver, finished(driver, [2, *PROMPT])) == 0


def test_last_token_of_a_prompt_is_always_computed() -> None:
    driver = Driver(config())
    finished(driver, PROMPT[:8])
    assert num_cached(driver, finished(driver, PROMPT[:8])) == 4


def test_output_tokens_are_found_too() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT, max_tokens=7)
    driver.run_to_end()
    assert num_cached(driver, finished(driver, [*PROMPT, *driver.output(key)])) == 16


def test_another_tenant_finds_nothing() -> None:
    driver = Driver(config())
    driver.submit(PROMPT, max_tokens=1, tenant="a")
    driver.run_to_end()
    other = driver.submit(PROMPT, max_tokens=1, tenant="b")
    driver.run_to_end()
    assert num_cached(driver, other) == 0


def test_outputs_of_another_tenant_are_not_found() -> None:
    driver = Driver(config())
    tokens = [1]
    for tenant in ("a", "b"):
        # No block is full before the output fills it.
        key = driver.submit([1], max_tokens=9, tenant=tenant)
        driver.run_to_end()
        tokens = [1, *driver.output(key)]
    other = driver.submit(tokens, max_tokens=1, tenant="c")
    driver.run_to_end()
    assert num_cached(driver, other) == 0


def test_nothing_is_found_without_prefix_caching() -> None:
    driver = Driver(config(enable_prefix_caching=False))
    finished(driver, PROMPT)
    assert num_cached(driver, finished(driver, PROMPT)) == 0


def test_prefix_is_found_while_its_result_is_on_its_way() -> None:
    driver = Driver(config())
    driver.submit(PROMPT, max_tokens=1)
    driver.plan()
    second = driver.submit(PROMPT, max_tokens=1)
    plan = planned(driver.plan())
    assert [row.num_computed_tokens for row in plan.added_rows] == [8]
    driver.run_to_end()
    assert num_cached(driver, second) == 8


def test_equal_prompts_of_one_step_are_computed_side_by_side() -> None:
    driver = Driver(config())
    for _ in range(2):
        driver.submit(PROMPT, max_tokens=1)
    assert list(planned(driver.step()).num_new_tokens) == [10, 10]


def test_evicted_prefix_is_not_found() -> None:
    driver = Driver(config(kv_groups=(GroupConfig(num_blocks=4),)))
    finished(driver, PROMPT)
    finished(driver, [2] * 14)
    assert num_cached(driver, finished(driver, PROMPT)) == 0


def test_end_of_a_prefix_is_evicted_before_its_beginning() -> None:
    driver = Driver(config(kv_groups=(GroupConfig(num_blocks=4),)))
    finished(driver, PROMPT)
    finished(driver, [2] * 11)
    assert num_cached(driver, finished(driver, PROMPT)) == 4


def test_prefix_computed_twice_is_evicted_after_what_follows_it() -> None:
    driver = Driver(config(kv_groups=(GroupConfig(num_blocks=8),)))
    driver.submit(PROMPT, max_tokens=1)
    longer = driver.submit(PROMPT, max_tokens=3)
    driver.run_to_end()
    # Takes the five blocks that hold nothing, and one of three that are cached.
    finished(driver, [2] * 23)
    key = finished(driver, [*PROMPT, *driver.output(longer)])
    assert num_cached(driver, key) == 8


def test_block_is_sealed_when_the_result_that_fills_it_is_good() -> None:
    driver = Driver(config())
    driver.submit(PROMPT)
    first, second = planned(driver.plan()), planned(driver.plan())
    driver.deliver()
    third = planned(driver.plan())
    sealed = [len(plan.groups[0].sealed_block_ids) for plan in (first, second, third)]
    assert sealed == [0, 0, 2]
    assert (
        list(third.groups[0].sealed_block_ids)
        == list(first.added_rows[0].block_tables[0].block_ids)[:2]
    )


def test_outputs_share_their_prompt_which_is_computed_once() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT, n=3, seed=5)
    plan = planned(driver.step())
    assert list(plan.num_new_tokens) == [10]
    assert [(fork.source_row, fork.output_index, fork.seed) for fork in plan.forked_rows] == [
        (0, 1, 6),
        (0, 2, 7),
    ]
    assert [list(fork.num_shared_blocks) for fork in plan.forked_rows] == [[3], [3]]
    driver.run_to_end()
    for index in range(3):
        assert driver.output(key, index) == expected_output(PROMPT, 5 + index, 8)


def test_all_but_the_last_sharer_write_into_copies() -> None:
    driver = Driver(config())
    driver.submit(PROMPT, n=3)
    shared = planned(driver.step()).added_rows[0].block_tables[0].block_ids[2]
    changes = planned(driver.step()).groups[0]
    assert list(changes.copy_row) == [0, 1]
    assert list(changes.copy_source) == [shared, shared]
    assert driver.worker.num_copies == 2


def test_source_of_a_copy_is_not_handed_out_in_the_same_step() -> None:
    limits = config(kv_groups=(GroupConfig(num_blocks=3),), enable_prefix_caching=False)
    kv_cache, (source, sibling) = KVCacheManager(limits), sequences(limits, 2)
    step = PlannedStep(1, 1)
    assert kv_cache.admit(source, step, headroom=0)
    kv_cache.fork(source, sibling)
    source.num_computed_tokens = sibling.num_computed_tokens = 2
    (shared,) = sibling.block_tables[0]
    assert kv_cache.grow(source, 3, step)
    kv_cache.release(sibling)
    (group,) = kv_cache.groups
    assert group.pool.num_free == 1
    assert group.take(1) != [shared]
    kv_cache.end_step()
    assert group.take(1) == [shared]


def test_fork_at_the_end_of_a_block_copies_nothing() -> None:
    driver = Driver(config())
    driver.submit(PROMPT[:8], n=3)
    driver.run_to_end()
    assert driver.worker.num_copies == 0


def test_output_without_a_row_begins_later_with_the_cached_prompt() -> None:
    driver = Driver(config(max_num_seqs=3))
    driver.submit([1], max_tokens=4)
    key = driver.submit(PROMPT, n=3, seed=5)
    assert len(planned(driver.step()).forked_rows) == 1
    late = [row for _ in range(6) for row in planned(driver.step()).added_rows]
    assert [(row.output_index, row.num_computed_tokens) for row in late] == [(2, 8)]
    driver.run_to_end()
    assert driver.output(key, 2) == expected_output(PROMPT, 7, 8)


def test_every_group_has_its_own_blocks() -> None:
    groups = (GroupConfig(num_blocks=8), GroupConfig(num_blocks=5))
    driver = Driver(config(kv_groups=groups))
    keys = [driver.submit([i, 1, 2, 0, 1], n=2, seed=i, max_tokens=9) for i in range(3)]
    driver.run_to_end(overlapped=True)
    for i, key in enumerate(keys):
        for index in range(2):
            assert driver.output(key, index) == expected_output([i, 1, 2, 0, 1], i + index, 9)
    driver.check_end()
