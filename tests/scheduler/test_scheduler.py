"""Events that are no step: aborts, windows, deadlines, and what happens when a process is lost."""

import pytest

from octavo.block_hash import extend_chain, root_hash
from octavo.scheduler.config import GroupConfig
from octavo.v1 import common_pb2, scheduling_pb2
from tests.scheduler.driver import ROUTER, Driver, config
from tests.scheduler.stream_model import expected_output

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 2, 1]


def reason(driver: Driver, key: bytes, output_index: int = 0) -> int | None:
    return driver.requests[key].streams[output_index].reason


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_abort_frees_everything_at_once(num_steps: int) -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT, n=2)
    for _ in range(num_steps):
        driver.step()
    driver.abort(key)
    assert reason(driver, key, 0) == reason(driver, key, 1) == common_pb2.FINISH_REASON_ABORT
    assert driver.plan() is None
    driver.check_end()


def test_abort_with_a_result_on_its_way_discards_its_token() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT)
    driver.plan()
    driver.abort(key)
    assert not driver.scheduler.is_idle
    driver.deliver()
    assert driver.output(key) == []
    assert driver.scheduler.stats.num_discarded_tokens == 1
    driver.check_end()


def test_stop_string_ends_one_output_and_usage_counts_up_to_it() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT, n=2, max_tokens=6)
    for _ in range(4):
        driver.step()
    stop_string = scheduling_pb2.ABORT_REASON_STOP_STRING
    driver.abort(key, 1, reason=stop_string, final_token_count=2)
    assert reason(driver, key, 1) == common_pb2.FINISH_REASON_STOP
    driver.run_to_end()
    usage = driver.requests[key].usage
    assert usage is not None
    assert (usage.num_output_tokens, usage.num_discarded_tokens) == (6 + 2, 2)


def test_expired_request_ends_before_it_is_planned() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT, timeout_ns=50)
    assert driver.scheduler.next_deadline_ns() == driver.now_ns + 50
    driver.step()
    driver.now_ns += 50
    assert driver.plan() is None
    assert reason(driver, key) == common_pb2.FINISH_REASON_DEADLINE
    assert len(driver.output(key)) == 1
    driver.check_end()


def test_output_pauses_before_its_window_and_goes_on_when_it_opens() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT)
    driver.set_window(key, 0, 3)
    driver.run_to_end(overlapped=True)
    assert len(driver.output(key)) == 3
    driver.set_window(key, 0, 2)
    assert driver.plan() is None, "an outdated window closes nothing"
    driver.set_window(key, 0, 5)
    driver.run_to_end(overlapped=True)
    assert len(driver.output(key)) == 5
    driver.set_window(key, 0, 100)
    driver.run_to_end(overlapped=True)
    assert driver.output(key) == expected_output(PROMPT, 0, 8)


def test_paused_output_holds_up_nobody_and_gives_its_blocks() -> None:
    driver = Driver(config(kv_groups=(GroupConfig(num_blocks=5),)))
    paused = driver.submit(PROMPT)
    driver.set_window(paused, 0, 1)
    driver.step()
    other = driver.submit([2], max_tokens=16)
    driver.run_to_end()
    assert driver.output(other) == expected_output([2], 0, 16)
    driver.set_window(paused, 0, 100)
    driver.run_to_end()
    usage = driver.requests[paused].usage
    assert usage is not None and usage.num_preemptions == 1
    assert driver.output(paused) == expected_output(PROMPT, 0, 8)


def test_lost_router_ends_its_requests_and_no_others() -> None:
    driver = Driver(config())
    driver.submit(PROMPT)
    other = driver.submit(PROMPT, router_id=b"router-b")
    driver.step()
    driver.lose_router(ROUTER)
    assert driver.scheduler.num_running == 1
    driver.run_to_end()
    assert driver.output(other) == expected_output(PROMPT, 0, 8)
    driver.check_end()


def test_resume_window_lets_a_request_outlive_its_router() -> None:
    driver = Driver(
        config(),
    )
    driver.submit(PROMPT, max_tokens=50, resume_window_ns=100)
    driver.step()
    driver.lose_router(ROUTER)
    assert driver.scheduler.num_running == 1
    assert driver.scheduler.next_deadline_ns() == driver.now_ns + 100
    driver.now_ns += 100
    assert driver.plan() is None
    driver.check_end()
    assert driver.scheduler.stats.num_finished[common_pb2.FINISH_REASON_ABORT] == 1


def test_routers_get_their_own_tokens_in_one_message_each() -> None:
    driver = Driver(config())
    driver.scheduler.take_outputs()
    first = driver.submit(PROMPT, n=2, max_tokens=2)
    second = driver.submit([1], router_id=b"router-b", max_tokens=1)
    driver.plan()
    driver.scheduler.update(driver.results.popleft(), driver.now_ns)
    outputs = driver.scheduler.take_outputs()
    assert list(outputs[ROUTER].request_key) == [first, first]
    assert list(outputs[ROUTER].output_index) == [0, 1]
    assert not outputs[ROUTER].finished
    assert list(outputs[b"router-b"].request_key) == [second]
    assert [end.request_key for end in outputs[b"router-b"].finished] == [second]
    assert not driver.scheduler.take_outputs()


@pytest.mark.parametrize("overlapped", [False, True])
def test_lost_workers_cost_time_and_no_token(overlapped: bool) -> None:
    driver = Driver(config())
    keys = [driver.submit([i, 1, 2], n=2, seed=i) for i in range(3)]
    for _ in range(3):
        driver.step()
    driver.plan()
    (late,) = driver.lose_workers()
    driver.scheduler.update(late, driver.now_ns)
    assert driver.scheduler.stats.num_stale_results == 1
    driver.run_to_end(overlapped=overlapped)
    for i, key in enumerate(keys):
        usage = driver.requests[key].usage
        assert usage is not None and usage.num_resumptions == 1
        for index in range(2):
            assert driver.output(key, index) == expected_output([i, 1, 2], i + index, 8)
    driver.check_end()


def test_request_that_loses_two_workers_in_a_row_is_not_tried_again() -> None:
    driver = Driver(config(max_num_batched_tokens=len(PROMPT)))
    key, later = driver.submit(PROMPT, n=2), driver.submit([2], seed=1)
    driver.plan()
    driver.lose_workers()
    driver.plan()
    assert reason(driver, key) is None
    driver.lose_workers()
    assert driver.scheduler.stats.num_worker_losses == 2
    assert reason(driver, key, 0) == reason(driver, key, 1) == common_pb2.FINISH_REASON_ERROR
    driver.run_to_end()
    assert driver.output(later) == expected_output([2], 1, 8)
    driver.check_end()


def test_request_that_goes_on_between_losses_outlives_any_number_of_them() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT)
    for _ in range(4):
        driver.step()
        driver.plan()
        driver.lose_workers()
    driver.run_to_end()
    assert driver.output(key) == expected_output(PROMPT, 0, 8)
    driver.check_end()


def test_workers_that_are_lost_with_nothing_to_do_cost_no_request() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT)
    for _ in range(3):
        driver.lose_workers()
    driver.run_to_end()
    assert driver.output(key) == expected_output(PROMPT, 0, 8)


def test_load_says_how_full_it_is() -> None:
    driver = Driver(config(max_num_seqs=1))
    driver.submit(PROMPT)
    driver.submit(PROMPT)
    driver.step()
    assert driver.scheduler.load() == scheduling_pb2.Load(
        num_waiting=1, num_running=1, num_free_blocks=32 - 3, num_blocks=32
    )


def test_cached_prefixes_are_those_of_the_request_that_ran_last() -> None:
    driver = Driver(config())
    for prompt in (PROMPT, PROMPT[::-1], PROMPT):
        driver.submit(prompt, max_tokens=1)
        driver.run_to_end()
    root = root_hash(b"model", "")
    first, second = extend_chain(root, PROMPT, 4)
    assert driver.scheduler.cached_prefixes()[:8] == second[:4] + first[:4]
    # Four blocks of two prompts.
    assert len(driver.scheduler.cached_prefixes()) == 4 * 4


def test_damaged_state_is_noticed() -> None:
    driver = Driver(config())
    driver.submit(PROMPT)
    driver.step()
    # A leak: somebody forgot to give a block back.
    pool = driver.scheduler._state.kv_cache.groups[0].pool
    pool.take()
    with pytest.raises(AssertionError, match="28 blocks free \\+ 3 held, of 32"):
        driver.scheduler.check_invariants()
