"""Copies of blocks: every plane, nothing else."""

import ctypes

import pytest
import torch
from torch import Tensor

from octavo.kernels.copy_blocks import copy_blocks
from octavo.kernels.threads import set_num_threads


def check(kv_cache: Tensor, pairs: list[tuple[int, int]]) -> None:
    expected = kv_cache.clone()
    for source, target in pairs:
        for layer in range(kv_cache.shape[0]):
            expected[layer, target] = kv_cache[layer, source]
    ids = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    copy_blocks(kv_cache, ids[:, 0].contiguous(), ids[:, 1].contiguous())
    assert torch.equal(kv_cache, expected)


PAIRS = pytest.mark.parametrize("pairs", [[], [(0, 7)], [(3, 1), (3, 2), (8, 0)]], ids=len)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@PAIRS
def test_copies_keys_and_values_of_each_layer(
    cpu: ctypes.CDLL, pairs: list[tuple[int, int]], dtype: torch.dtype
) -> None:
    check((100 * torch.randn(3, 9, 5, 2, 17)).to(dtype), pairs)


@PAIRS
def test_works_without_a_compiler(no_library: None, pairs: list[tuple[int, int]]) -> None:
    check(torch.randn(3, 9, 5, 2, 17), pairs)


def test_many_bytes_on_several_threads(cpu: ctypes.CDLL) -> None:
    set_num_threads(3)
    check(torch.randn(7, 9, 16, 6, 64), [(0, 5), (1, 6), (2, 8)])
