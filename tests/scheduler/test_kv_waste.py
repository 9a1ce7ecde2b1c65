"""KV memory that holds no token, at lengths as ShareGPT's: paging wastes next to nothing."""

import random

from benchmarks.bench_kv_waste import draw_lengths, measure


def test_three_percent_of_the_allocated_slots_are_empty_at_most() -> None:
    lengths = draw_lengths(300, 2048, random.Random(1))
    waste = measure(lengths, block_size=16, max_model_len=2048, max_num_seqs=32)
    # From the step in which its last prompt token is computed, each output token takes one more.
    assert waste.num_steps >= max(each.output for each in lengths)
    assert 0 < waste.paged.waste <= 0.03
    assert waste.paged.waste < waste.oracle.waste < waste.pow2.waste < waste.max.waste
