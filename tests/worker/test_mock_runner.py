"""The mock: the tokens it promises, whatever the plans they come from."""

import math

import pytest

from octavo.worker.mock_runner import MockRunner
from octavo.worker.settings import WorkerSettings
from tests.worker.plans import added, plan

SETTINGS = WorkerSettings(
    scheduler_endpoint="",
    mock=True,
    block_size=4,
    max_model_len=64,
    max_num_seqs=4,
    num_gpu_blocks_override=32,
    mock_vocab_size=1000,
    mock_eos_token_id=2,
)

MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """SplitMix64 in Python's own integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def expected_tokens(prompt: list[int], count: int, seed: int) -> list[int]:
    """What the mock of SETTINGS generates, from its definition."""
    token_ids = list(prompt)
    for _ in range(count):
        token_id = mix(mix(mix(seed) ^ len(token_ids)) ^ token_ids[-1]) % 999
        token_ids.append(token_id + (token_id >= 2))
    return token_ids[len(prompt) :]


def test_tokens_follow_from_seed_position_and_the_last_token() -> None:
    runner = MockRunner(SETTINGS, poison=True)
    first = plan(1, [(0, 5, 1)])
    first.added_rows.append(added(0, [5, 6, 7, 8, 9], [0, 1]))
    tokens = list(runner.execute(first).token_ids)
    for step_id in range(2, 5):
        tokens += runner.execute(plan(step_id, [(0, 1, 1)])).token_ids
    assert tokens == expected_tokens([5, 6, 7, 8, 9], 4, seed=0)


def test_a_seed_counts_where_tokens_are_drawn_and_not_where_they_are_greedy() -> None:
    runner = MockRunner(SETTINGS)
    first = plan(1, [(row, 2, 1) for row in range(3)])
    for row in range(3):
        first.added_rows.append(added(row, [5, 6], [row], seed=40 + row))
    for row in (1, 2):
        first.added_rows[row].sampling.temperature = 0.7
    tokens = list(runner.execute(first).token_ids)
    assert tokens == [expected_tokens([5, 6], 1, seed)[0] for seed in (0, 41, 42)]


def test_chunks_forks_and_resumption_change_no_token() -> None:
    runner = MockRunner(SETTINGS, poison=True)
    chunk = plan(1, [(0, 3, 0)])
    chunk.added_rows.append(added(0, [5, 6, 7, 8, 9], [0, 1]))
    result = runner.execute(chunk)
    assert not result.token_ids

    last = plan(2, [(0, 2, 1)])
    last.forked_rows.add(source_row=0, row=3, seed=1, num_shared_blocks=[2])
    result = runner.execute(last)
    (token, _) = result.token_ids
    assert list(result.token_ids) == expected_tokens([5, 6, 7, 8, 9], 1, seed=0) * 2

    resumed = plan(3, [(1, 6, 1)])
    resumed.freed_rows.extend([0, 3])
    resumed.added_rows.append(added(1, [5, 6, 7, 8, 9, token], [4, 5]))
    tokens = [token, *runner.execute(resumed).token_ids]
    assert tokens == expected_tokens([5, 6, 7, 8, 9], 2, seed=0)


def test_the_end_token_comes_only_as_often_as_asked() -> None:
    def share_of_ends(end_rate: float) -> float:
        settings = WorkerSettings(
            scheduler_endpoint="", mock=True, max_num_seqs=512, mock_end_rate=end_rate
        )
        runner = MockRunner(settings)
        first = plan(1, [(row, 1, 1) for row in range(512)])
        first.added_rows.extend(added(row, [row], [row]) for row in range(512))
        tokens = list(runner.execute(first).token_ids)
        return tokens.count(settings.mock_eos_token_id) / len(tokens)

    assert share_of_ends(0.0) == 0.0
    assert 0.1 < share_of_ends(0.25) < 0.4
    assert share_of_ends(1.0) == 1.0


def test_a_plan_without_work_only_frees() -> None:
    runner = MockRunner(SETTINGS)
    first = plan(1, [(0, 2, 1)])
    first.added_rows.append(added(0, [5, 6], [0]))
    runner.execute(first)
    freeing = plan(2)
    freeing.freed_rows.append(0)
    assert not runner.execute(freeing).token_ids


def test_all_tokens_are_equally_probable_where_log_probabilities_are_wanted() -> None:
    runner = MockRunner(SETTINGS, poison=True)
    first = plan(1, [(0, 5, 1), (1, 2, 1)])
    first.added_rows.extend([added(0, [5, 6, 7, 8, 9], [0, 1]), added(1, [6, 7], [2])])
    first.added_rows[0].num_logprobs = 2
    first.added_rows[0].num_prompt_logprobs = 0
    result = runner.execute(first)
    (drawn,) = result.logprobs
    assert drawn.chosen.token_id == result.token_ids[0]
    assert drawn.chosen.logprob == pytest.approx(-math.log(1000))
    assert [top.token_id for top in drawn.top] == [0, 1]
    (told,) = result.prompt_logprobs
    assert (told.row, told.first_position) == (0, 1)
    assert [position.chosen.token_id for position in told.positions] == [6, 7, 8, 9]
