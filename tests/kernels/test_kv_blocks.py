"""The GPU's cache layout: what was written is read, and nothing else is touched."""

import math

import pytest
import torch

from octavo.kernels.kv_blocks import KvBlocks

SHAPE = (6, 16, 3, 40)


def blocks_of(dtype: torch.dtype, k_scale: float = 1.0, v_scale: float = 1.0) -> KvBlocks:
    k_cache, v_cache = (torch.full(SHAPE, math.nan).to(dtype) for _ in range(2))
    return KvBlocks(k_cache, v_cache, k_scale, v_scale)


def slots_of(blocks: torch.Tensor, num_tokens: int) -> torch.Tensor:
    positions = torch.arange(num_tokens)
    return blocks[positions // SHAPE[1]] * SHAPE[1] + positions % SHAPE[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_tokens_are_read_from_the_blocks_they_were_written_to(dtype: torch.dtype) -> None:
    cache, table = blocks_of(dtype), torch.tensor([4, 1, 3])
    keys, values = torch.randn(2, 37, *SHAPE[2:]).to(dtype)
    cache.write(slots_of(table, 37), keys, values)
    read_keys, read_values = cache.read(table, 37)
    assert torch.equal(read_keys, keys) and torch.equal(read_values, values)
    assert torch.equal(cache.k_cache[1, 2], keys[18])
    untouched = torch.cat((cache.v_cache[[0, 2, 5]].flatten(), cache.v_cache[3, 5:].flatten()))
    assert untouched.isnan().all()


def test_a_slot_below_zero_is_written_nowhere() -> None:
    cache = blocks_of(torch.float32)
    keys, values = torch.randn(2, 3, *SHAPE[2:])
    cache.write(torch.tensor([-1, 20, -1]), keys, values)
    assert torch.equal(cache.k_cache[1, 4], keys[1])
    assert int(cache.k_cache.isfinite().sum()) == keys[1].numel()


def test_eight_bits_are_scaled_and_end_at_their_largest() -> None:
    cache, table = blocks_of(torch.float8_e4m3fn, 0.5, 2.0), torch.tensor([2])
    keys, values = torch.randn(2, 8, *SHAPE[2:])
    keys[0, 0, 0] = 1e4
    cache.write(slots_of(table, 8), keys, values)
    read_keys, read_values = cache.read(table, 8)
    assert read_keys[0, 0, 0] == 448 * 0.5
    keys[0, 0, 0] = 448 * 0.5
    # Three bits of mantissa: half of an eighth; below 2⁻⁶ steps are even.
    torch.testing.assert_close(read_keys, keys, rtol=2**-4, atol=2**-10 * 0.5)
    torch.testing.assert_close(read_values, values, rtol=2**-4, atol=2**-10 * 2)
