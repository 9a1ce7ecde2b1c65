"""Beside outputs under way long prompts are computed in small parts, bursts as fast as can be."""

import random
from collections.abc import Callable

import pytest

from tests.scheduler.simulated_device import Simulation, Speed

COMPUTE_BOUND = Speed()
MEMORY_BOUND = Speed(
    fixed_s=5e-3, per_token_s=17e-6, per_sample_s=0.0, per_pair_s=1e-9, free_tokens=280
)
# Decoding takes the longer, the more there is to read: 30 ms for 31 rows of 64 tokens, 43 of 384.
READ_BOUND = Speed(
    fixed_s=12e-3, per_token_s=0.5e-3, per_sample_s=0.0, per_pair_s=0.24e-6, per_read_s=1.1e-6
)
LONG_PROMPT = 4096


def never_slower(step_id: int) -> float:
    return 1.0


def noisy(step_id: int) -> float:
    """Up to 10 % off, and each 50th step takes three times as long."""
    draw = random.Random(step_id)
    return draw.uniform(0.9, 1.1) * (3.0 if draw.random() < 0.02 else 1.0)


def percentile(values: list[float], share: float) -> float:
    return values[min(int(len(values) * share), len(values) - 1)]


def with_streams(
    speed: Speed,
    *,
    count: int = 31,
    slowdown: Callable[[int], float] = never_slower,
    is_overlapped: bool = True,
    tells_times: bool = True,
) -> tuple[Simulation, list[bytes]]:
    """Return a simulation with outputs under way, each with 100 tokens."""
    simulation = Simulation(
        speed, is_overlapped=is_overlapped, slowdown=slowdown, tells_times=tells_times
    )
    keys = [simulation.submit(64, 500) for _ in range(count)]
    simulation.run(lambda: all(len(simulation.token_times_s[key]) >= 100 for key in keys))
    return simulation, keys


def ttft_alone_s(speed: Speed) -> float:
    simulation = Simulation(speed)
    key = simulation.submit(LONG_PROMPT, 1)
    simulation.run_to_end()
    return simulation.ttft_s(key)


def first_part(simulation: Simulation) -> int:
    """Return how many tokens the next step takes of a long prompt that comes now."""
    num_steps = len(simulation.chunks)
    simulation.submit(LONG_PROMPT, 1)
    simulation.run(lambda: len(simulation.chunks) > num_steps)
    return simulation.chunks[num_steps]


@pytest.mark.parametrize("is_overlapped", [False, True])
@pytest.mark.parametrize(
    "speed", [COMPUTE_BOUND, Speed(per_pair_s=0.0), Speed(per_token_s=0.3e-3), MEMORY_BOUND]
)
def test_a_long_prompt_does_not_double_the_pauses_of_the_others(
    speed: Speed, is_overlapped: bool
) -> None:
    simulation, keys = with_streams(speed, is_overlapped=is_overlapped)
    start_s = simulation.now_s
    before = simulation.pauses_s(keys, start_s / 2, start_s)
    long = simulation.submit(LONG_PROMPT, 1)
    simulation.run_to_first_token(long)
    beside = simulation.pauses_s(keys, start_s, simulation.now_s)
    assert percentile(beside, 0.99) <= 2.0 * percentile(before, 0.5)
    assert simulation.ttft_s(long) <= 3.0 * ttft_alone_s(speed)


@pytest.mark.parametrize("slowdown", [never_slower, noisy])
def test_what_the_contexts_of_others_cost_more_and_more_is_not_put_down_to_a_long_prompt(
    slowdown: Callable[[int], float],
) -> None:
    simulation, _ = with_streams(READ_BOUND, slowdown=slowdown)
    long = simulation.submit(LONG_PROMPT, 1)
    simulation.run_to_first_token(long)
    assert simulation.ttft_s(long) <= 3.0 * ttft_alone_s(READ_BOUND)


@pytest.mark.parametrize("context", [0, 500, 4000])
def test_it_is_known_how_many_tokens_a_step_has_time_for(context: int) -> None:
    simulation, _ = with_streams(COMPUTE_BOUND, slowdown=noisy)
    for num_tokens in (LONG_PROMPT, 200, LONG_PROMPT, *[50] * 20):
        simulation.run_to_first_token(simulation.submit(num_tokens, 1))
    budget = simulation.step_cost.prompt_budget(31, 1)
    num_tokens = budget.num_tokens_left(0, 0.0, context)
    beside_s = COMPUTE_BOUND.step_s(31 + num_tokens, 31, 31 * 300 + num_tokens * context)
    assert beside_s / COMPUTE_BOUND.step_s(31, 31, 31 * 300) == pytest.approx(1.7, rel=0.1)


def test_noise_is_no_reason_for_longer_pauses() -> None:
    """Those beside a long prompt are as long as they may be, give or take what all vary by."""
    simulation, keys = with_streams(COMPUTE_BOUND, slowdown=noisy)
    for _ in range(2):
        start_s = simulation.now_s
        long = simulation.submit(LONG_PROMPT, 1)
        simulation.run_to_first_token(long)
    beside = simulation.pauses_s(keys, start_s, simulation.now_s)
    assert percentile(beside, 0.9) <= 2.0 * COMPUTE_BOUND.step_s(31, 31, 31 * 300)
    assert simulation.ttft_s(long) <= 3.0 * ttft_alone_s(COMPUTE_BOUND)


def test_parts_become_smaller_as_the_context_makes_them_dearer() -> None:
    simulation, _ = with_streams(COMPUTE_BOUND)
    num_steps = len(simulation.chunks)
    long = simulation.submit(LONG_PROMPT, 1)
    simulation.run_to_first_token(long)
    parts = [part for part in simulation.chunks[num_steps:] if part]
    assert 4 <= parts[-2] < 0.5 * parts[0]


@pytest.mark.parametrize(("count", "num_tokens"), [(64, 128), (64, 32), (60, 512)])
def test_a_burst_is_worked_off_as_fast_as_without_limits(count: int, num_tokens: int) -> None:
    mean_ttft_s, end_s = [], []
    for tells_times in (False, True):
        # What the device takes is known before the burst comes.
        simulation, _ = with_streams(COMPUTE_BOUND, count=1, tells_times=tells_times)
        keys = [simulation.submit(num_tokens, 32) for _ in range(count)]
        simulation.run_to_end()
        mean_ttft_s.append(sum(simulation.ttft_s(key) for key in keys) / count)
        end_s.append(simulation.now_s)
    assert mean_ttft_s[1] <= 1.02 * mean_ttft_s[0]
    assert end_s[1] <= 1.05 * end_s[0]


def test_throughput_is_kept_beside_a_long_prompt() -> None:
    end_s = []
    for tells_times in (False, True):
        simulation, _ = with_streams(COMPUTE_BOUND, tells_times=tells_times)
        simulation.submit(LONG_PROMPT, 1)
        simulation.run_to_end()
        end_s.append(simulation.now_s)
    assert end_s[1] <= end_s[0] / 0.9


def test_a_prompt_alone_takes_whole_steps() -> None:
    simulation, _ = with_streams(COMPUTE_BOUND)
    simulation.run_to_end()
    num_steps = len(simulation.chunks)
    simulation.submit(LONG_PROMPT, 1)
    simulation.run_to_end()
    assert simulation.chunks[num_steps:] == [512] * 8


def test_a_device_that_tells_no_times_takes_whole_steps() -> None:
    simulation, _ = with_streams(COMPUTE_BOUND, tells_times=False)
    num_steps = len(simulation.chunks)
    long = simulation.submit(LONG_PROMPT, 1)
    simulation.run_to_first_token(long)
    assert simulation.chunks[num_steps : num_steps + 9] == [512 - 31] * 8 + [LONG_PROMPT - 8 * 481]


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_step_that_was_held_up_is_no_measure(factor: float) -> None:
    undisturbed, _ = with_streams(COMPUTE_BOUND)
    disturbed, _ = with_streams(
        COMPUTE_BOUND, slowdown=lambda step_id: factor if step_id == 95 else 1.0
    )
    assert first_part(disturbed) == pytest.approx(first_part(undisturbed), rel=0.1)


def test_where_prompts_never_end_the_time_of_decoding_stays_known() -> None:
    simulation, _ = with_streams(
        Speed(per_pair_s=0.0), slowdown=lambda step_id: 3.0 if step_id > 150 else 1.0
    )
    simulation.submit(8000, 1)
    simulation.run(lambda: len(simulation.chunks) == 330)
    before, after = simulation.chunks[130:150], simulation.chunks[290:]
    assert after.count(0) == 1, "one step only decodes"
    # All takes three times as long, which is no reason for other parts.
    assert min(part for part in after if part) >= 0.8 * min(before)


def test_prompts_progress_whatever_they_cost() -> None:
    simulation, _ = with_streams(Speed(fixed_s=1e-6, per_token_s=1e-6, per_pair_s=1e-3), count=1)
    num_steps = len(simulation.chunks)
    long = simulation.submit(512, 1)
    simulation.run_to_first_token(long)
    assert all(part >= 4 for part in simulation.chunks[num_steps:-1] if part)
