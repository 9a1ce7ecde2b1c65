"""Outputs of one request share its prompt: what is computed, and which blocks are held."""

import pytest

from octavo.scheduler.config import GroupConfig
from tests.scheduler.driver import Driver, config
from tests.scheduler.stream_model import expected_output

PROMPT = [0, 1, 2, 0, 1, 1, 2, 0, 2, 1, 1, 0, 0, 2, 1]
NUM_BLOCKS = 128


@pytest.mark.parametrize("block_size", [1, 4, 5, 16])
def test_eight_outputs_compute_a_prompt_of_15_tokens_once(block_size: int) -> None:
    driver = Driver(config(block_size=block_size, kv_groups=(GroupConfig(num_blocks=NUM_BLOCKS),)))
    key = driver.submit(PROMPT, n=8, max_tokens=4)
    held = []
    while driver.step() is not None:
        held.append(NUM_BLOCKS - driver.scheduler.load().num_free_blocks)
    # One step for the prompt, then three in which each output computes the token it got before.
    assert driver.scheduler.stats.num_computed_tokens == 15 + 8 * 3
    assert held[0] == -(-15 // block_size)
    # Full blocks of the prompt are shared; a partial one, and all after it, each has for itself.
    num_shared = 15 // block_size
    for num_generated in (1, 2):
        num_blocks = -(-(15 + num_generated) // block_size)
        assert held[num_generated] == num_shared + 8 * (num_blocks - num_shared)
    assert held[3] == 0
    usage = driver.requests[key].usage
    assert usage is not None
    assert (usage.num_prompt_tokens, usage.num_output_tokens) == (15, 32)
    for output in range(8):
        assert driver.output(key, output) == expected_output(PROMPT, output, 4)
    driver.check_end()
