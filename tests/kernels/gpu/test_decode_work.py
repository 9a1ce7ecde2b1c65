"""The plan of a decode step against a list of all its tiles."""

from bisect import bisect_right

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels.gpu.decode_work import DecodeWork, plan_decode_work

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def planned(seq_lens: list[int], num_kv_heads: int, query_len: int, window: int) -> DecodeWork:
    k_cache = torch.zeros(1, 16, num_kv_heads, 64, dtype=torch.float16, device=DEVICE)
    max_num_requests = len(seq_lens) + 2
    work = DecodeWork.allocate(k_cache, 4 * num_kv_heads, max_num_requests, query_len, window)
    plan_decode_work(work, torch.tensor(seq_lens, dtype=torch.int32, device=DEVICE))
    return work


def tiles_of(seq_len: int, work: DecodeWork) -> int:
    """How many tiles hold a key that some new token sees."""
    first_token = seq_len - work.query_len
    first_key = max(first_token + 1 - work.window, 0) if work.window else 0
    return len({position // work.launch.tile for position in range(first_key, seq_len)})


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.just(0) | st.integers(3, 3000), min_size=1, max_size=30),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([1, 3]),
    st.sampled_from([0, 1, 100, 1000]),
)
def test_all_tiles_are_counted_and_each_program_finds_its_first_request(
    seq_lens: list[int], num_kv_heads: int, query_len: int, window: int
) -> None:
    work = planned(seq_lens, num_kv_heads, query_len, window)
    starts = [0]
    for seq_len in seq_lens:
        starts.append(starts[-1] + tiles_of(seq_len, work))
    assert work.tile_starts[: len(starts)].tolist() == starts
    num_busy = min(work.num_programs, starts[-1])
    for program, first_request in enumerate(work.first_requests[:num_busy].tolist()):
        first_tile = program * starts[-1] // num_busy
        assert first_request == bisect_right(starts, first_tile) - 1


def test_more_requests_than_are_looked_at_together() -> None:
    seq_lens = [1 + 37 * i % 500 for i in range(3000)]
    work = planned(seq_lens, 1, 1, 0)
    starts = torch.tensor([0] + [tiles_of(seq_len, work) for seq_len in seq_lens]).cumsum(0)
    assert torch.equal(work.tile_starts[: len(starts)].cpu(), starts.int())
