"""How many programs share a tile: enough to fill a GPU, none without work that is worth it."""

from hypothesis import given
from hypothesis import strategies as st

from octavo.kernels.gpu.tiles import MAX_SPLIT_TILES, num_splits


@given(st.integers(1, 10**6), st.integers(0, 10**4), st.sampled_from([16, 32, 64, 128, 256]))
def test_programs_that_share_a_tile(num_tiles: int, num_steps: int, num_tokens: int) -> None:
    splits = num_splits(num_tiles, num_steps, num_tokens)
    assert splits >= 1
    if splits > 1:
        assert num_tiles <= MAX_SPLIT_TILES
        assert num_steps // splits >= 4
        assert num_tiles * splits <= 4 * 132


def test_a_small_product_is_shared_and_a_large_one_is_not() -> None:
    assert num_splits(num_tiles=32, num_steps=32, num_tokens=16) == 8
    assert num_splits(num_tiles=32, num_steps=32, num_tokens=128) == 2
    assert num_splits(num_tiles=1000, num_steps=32, num_tokens=16) == 1
