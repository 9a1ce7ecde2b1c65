"""What a result changes: tokens, ends, and what an error spoils."""

import pytest

from octavo.scheduler.config import GroupConfig
from octavo.scheduler.results import BadResult
from octavo.scheduler.scheduler import Scheduler
from octavo.v1 import common_pb2, scheduling_pb2, step_pb2
from tests.scheduler.driver import Driver, config
from tests.scheduler.stream_model import expected_output

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 2, 1]


def reason(driver: Driver, key: bytes, output_index: int = 0) -> int | None:
    return driver.requests[key].streams[output_index].reason


def usage(driver: Driver, key: bytes) -> common_pb2.Usage:
    found = driver.requests[key].usage
    assert found is not None
    return found


def test_output_ends_at_a_stop_token_which_is_delivered() -> None:
    driver = Driver(config())
    whole = expected_output(PROMPT, 0, 20)
    stop = whole[3]
    key = driver.submit(PROMPT, max_tokens=20, stop=[stop])
    driver.run_to_end()
    assert driver.output(key) == whole[: whole.index(stop) + 1]
    assert reason(driver, key) == common_pb2.FINISH_REASON_STOP


def test_stop_token_wins_where_the_length_ends_too() -> None:
    driver = Driver(config())
    first = expected_output(PROMPT, 0, 1)
    key = driver.submit(PROMPT, max_tokens=1, stop=first)
    driver.run_to_end()
    assert reason(driver, key) == common_pb2.FINISH_REASON_STOP


def test_token_planned_past_a_stop_is_discarded_and_counted() -> None:
    driver = Driver(config())
    stop = expected_output(PROMPT, 0, 1)
    key = driver.submit(PROMPT, max_tokens=20, stop=stop)
    driver.run_to_end(overlapped=True)
    assert len(driver.output(key)) == 1
    assert usage(driver, key).num_discarded_tokens == 1
    assert driver.scheduler.stats.num_discarded_tokens == 1


def test_output_ends_with_the_context() -> None:
    driver = Driver(config(max_model_len=16))
    key = driver.submit(PROMPT, max_tokens=100)
    driver.run_to_end(overlapped=True)
    assert len(driver.output(key)) == 6
    assert reason(driver, key) == common_pb2.FINISH_REASON_LENGTH


def test_usage_counts_what_happened() -> None:
    driver = Driver(config())
    driver.submit(PROMPT, max_tokens=1)
    driver.run_to_end()
    driver.now_ns = 2_000
    key = driver.submit(PROMPT, max_tokens=3)
    driver.now_ns = 2_100
    driver.plan()
    driver.now_ns = 2_300
    driver.deliver()
    driver.now_ns = 2_700
    driver.run_to_end()
    found = usage(driver, key)
    assert (found.num_prompt_tokens, found.num_cached_tokens) == (10, 8)
    assert (found.num_computed_tokens, found.num_output_tokens) == (2 + 2, 3)
    assert (found.queue_ns, found.first_token_ns, found.total_ns) == (100, 300, 700)


def test_result_that_comes_again_changes_nothing() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT)
    driver.plan()
    result = driver.results[0]
    driver.deliver()
    driver.scheduler.update(result, driver.now_ns)
    assert driver.scheduler.stats.num_stale_results == 1
    assert not driver.scheduler.take_outputs()
    driver.run_to_end()
    assert driver.output(key) == expected_output(PROMPT, 0, 8)


@pytest.mark.parametrize("epoch", [2, 4])
def test_result_of_another_epoch_changes_nothing(epoch: int) -> None:
    driver = Driver(config())
    driver.submit(PROMPT)
    driver.plan()
    result = step_pb2.StepResult()
    result.CopyFrom(driver.results[0])
    result.epoch = epoch
    driver.scheduler.update(result, driver.now_ns)
    assert driver.scheduler.stats.num_stale_results == 1
    assert driver.scheduler.num_in_flight == 1


def test_result_that_overtakes_another_is_refused() -> None:
    driver = Driver(config())
    driver.submit(PROMPT)
    driver.plan()
    driver.plan()
    with pytest.raises(BadResult, match="step 2 came before that of step 1"):
        driver.scheduler.update(driver.results[1], driver.now_ns)


def test_row_that_fails_ends_its_request_and_no_other() -> None:
    driver = Driver(config())
    bad = driver.submit([0, 1])
    good = driver.submit([1, 2])
    driver.plan(failing={0})
    driver.run_to_end(overlapped=True)
    assert reason(driver, bad) == common_pb2.FINISH_REASON_ERROR
    assert driver.output(bad) == []
    assert driver.output(good) == expected_output([1, 2], 0, 8)


def test_blocks_of_a_row_that_failed_are_not_found() -> None:
    driver = Driver(config())
    driver.submit(PROMPT)
    driver.plan(failing={0})
    driver.deliver()
    key = driver.submit(PROMPT)
    driver.run_to_end()
    assert usage(driver, key).num_cached_tokens == 0
    assert driver.output(key) == expected_output(PROMPT, 0, 8)


@pytest.mark.parametrize("num_plans", [1, 2])
def test_reader_of_a_block_that_failed_begins_again(num_plans: int) -> None:
    driver = Driver(config())
    driver.submit(PROMPT)
    driver.plan(failing={0})
    reader = driver.submit(PROMPT, seed=1)
    for _ in range(num_plans):
        driver.plan()
    driver.run_to_end(overlapped=True)
    assert driver.output(reader) == expected_output(PROMPT, 1, 8)
    assert usage(driver, reader).num_discarded_tokens == 1
    driver.check_end()


def test_reader_waits_for_its_results_before_it_begins_again() -> None:
    driver = Driver(config())
    driver.submit(PROMPT)
    driver.plan(failing={0})
    reader = driver.submit(PROMPT, seed=1)
    driver.plan()
    driver.deliver()
    assert driver.plan() is None, "the second step, which is not to be trusted, is in flight"
    driver.deliver()
    plan = driver.plan()
    assert plan is not None and [row.request_key for row in plan.added_rows] == [reader]


def test_block_filled_anew_is_not_sealed_by_the_result_of_an_older_step() -> None:
    driver = Driver(config(block_size=1, kv_groups=(GroupConfig(num_blocks=6),)))
    first = driver.submit([0, 0])
    driver.set_window(first, 0, 1)
    driver.step()
    driver.submit([1, 1, 1])
    driver.step()
    # The second fills the last block, loses it to the first, which fills it anew, and fails.
    filling = driver.plan()
    driver.set_window(first, 0, 8)
    refilling = driver.plan(failing={0})
    assert filling is not None and refilling is not None
    (block,) = filling.groups[0].block_ids
    assert list(refilling.groups[0].block_ids) == [block]
    driver.deliver()
    later = driver.plan()
    assert later is not None and block not in later.groups[0].sealed_block_ids
    driver.run_to_end()
    driver.check_end()


def test_sibling_of_a_source_that_failed_begins_again() -> None:
    driver = Driver(config())
    key = driver.submit(PROMPT, n=2)
    driver.plan(failing={0})
    driver.plan()
    driver.run_to_end(overlapped=True)
    assert reason(driver, key, 0) == common_pb2.FINISH_REASON_ERROR
    assert driver.output(key, 1) == expected_output(PROMPT, 1, 8)
    driver.check_end()


def test_a_result_without_the_log_probabilities_that_were_asked_for_is_refused() -> None:
    scheduler = Scheduler(config())
    scheduler.submit(
        scheduling_pb2.SubmitRequest(
            request_key=bytes(16),
            prompt_token_ids=[1, 2, 3],
            n=1,
            seeds=[0],
            max_tokens=4,
            num_logprobs=0,
            num_prompt_logprobs=1,
        ),
        0,
    )
    plan = scheduler.schedule(0)
    assert plan is not None
    (added,) = plan.added_rows
    assert (added.num_logprobs, added.num_prompt_logprobs) == (0, 1)
    result = step_pb2.StepResult(
        epoch=plan.epoch,
        step_id=plan.step_id,
        token_ids=[5],
    )
    with pytest.raises(BadResult, match="brings 1 log-probabilities, its result has 0"):
        scheduler.update(result, 0)
    result.logprobs.add(chosen=common_pb2.TokenLogprob(token_id=5, logprob=-1, rank=1))
    result.prompt_logprobs.add(row=7, first_position=1)
    with pytest.raises(BadResult, match="no row 7"):
        scheduler.update(result, 0)
    result.prompt_logprobs[0].row = plan.row[0]
    result.prompt_logprobs[0].positions.extend([result.logprobs[0]] * 2)
    scheduler.update(result, 0)
    (outputs,) = scheduler.take_outputs().values()
    assert list(outputs.logprobs) == list(result.logprobs)
    (part,) = outputs.prompt_logprobs
    assert (part.request_key, part.first_position, len(part.positions)) == (bytes(16), 1, 2)
