"""Pairs of token and expert are sorted, and every expert's are in tiles of its own."""

import pytest
import torch

from octavo.kernels.gpu import expert_order
from octavo.kernels.gpu.expert_order import order_by_expert


@pytest.mark.parametrize("max_counted", [512, 32])
@pytest.mark.parametrize("tile_size", [16, 32])
@pytest.mark.parametrize(("num_tokens", "top_k", "num_experts"), [(1, 1, 2), (3, 2, 8), (61, 5, 6)])
def test_pairs_are_in_tiles_of_their_experts(
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    num_tokens: int,
    top_k: int,
    num_experts: int,
    tile_size: int,
    max_counted: int,
) -> None:
    """Tiles are counted exactly or not; some of the pairs have no expert, and expert 1 no pairs."""
    monkeypatch.setattr(expert_order, "_BLOCK", max_counted)
    expert_ids = torch.randint(-1, num_experts, (num_tokens, top_k), dtype=torch.int32)
    expert_ids[expert_ids == 1] = 0
    pairs, tiles = order_by_expert(expert_ids.to(device), num_experts, tile_size)
    ids = expert_ids.flatten()
    is_routed = ids >= 0
    expected = ids.argsort(stable=True)
    assert torch.equal(pairs.cpu()[(~is_routed).sum() :], expected[(~is_routed).sum() :].int())
    covered: list[int] = []
    for expert, begin, end in tiles.tolist():
        if expert >= 0:
            assert 0 < end - begin <= tile_size
            assert (ids[pairs[begin:end].cpu().long()] == expert).all()
            covered += range(begin, end)
    assert covered == list(range(int((~is_routed).sum()), len(ids)))
