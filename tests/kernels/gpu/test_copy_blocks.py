"""Copies of blocks on a GPU: every plane, nothing else."""

import pytest
import torch

from octavo.kernels.gpu.copy_blocks import copy_blocks

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str
)


@DTYPES
@pytest.mark.parametrize("ids", [torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("pairs", [[(0, 7)], [(3, 1), (3, 2), (8, 0)], [(5, 4), (-1, -1)]], ids=len)
@pytest.mark.parametrize("block", [(5, 3, 7), (16, 2, 64), (16, 8, 80)])
def test_copies_keys_and_values_of_each_layer(
    device: str,
    block: tuple[int, ...],
    pairs: list[tuple[int, int]],
    ids: torch.dtype,
    dtype: torch.dtype,
) -> None:
    kv_cache = torch.randn(6, 9, *block).to(device, dtype)
    expected = kv_cache.clone()
    for source, target in pairs:
        if target >= 0:
            expected[:, target] = kv_cache[:, source]
    sources, targets = torch.tensor(pairs, dtype=ids, device=device).T.contiguous()
    copy_blocks(kv_cache, sources, targets)
    assert torch.equal(kv_cache.view(torch.uint8), expected.view(torch.uint8))
