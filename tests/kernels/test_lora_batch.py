"""Rows brought together by adapter: every row that has one is in one tile, with its own."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.kernels.lora_batch import LoraBatch


@given(
    st.integers(1, 9).flatmap(
        lambda num_adapters: st.tuples(
            st.just(num_adapters), st.lists(st.integers(-1, num_adapters - 1), max_size=300)
        )
    )
)
def test_tiles_hold_each_row_once(case: tuple[int, list[int]]) -> None:
    num_adapters, adapter_ids = case
    batch = LoraBatch.of(torch.tensor(adapter_ids, dtype=torch.int32), num_adapters)
    in_tiles = []
    for adapter, first, last in batch.tiles.tolist():
        assert last - first <= batch.tile_size
        in_tiles += [(row, adapter) for row in batch.rows[first : max(first, last)].tolist()]
    assert sorted(in_tiles) == [(row, each) for row, each in enumerate(adapter_ids) if each >= 0]


def test_shapes_do_not_depend_on_the_adapters() -> None:
    none, mixed = (
        LoraBatch.of(ids, 4) for ids in (torch.full((70,), -1), torch.arange(70) % 5 - 1)
    )
    assert none.tiles.shape == mixed.tiles.shape and none.tile_size == mixed.tile_size
