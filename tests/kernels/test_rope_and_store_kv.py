"""Rotation against multiplication of complex numbers, and the cache slots that are written."""

import ctypes
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from octavo.kernels.kv_pages import KvPages, page_size
from octavo.kernels.rope_and_store_kv import rope_and_store_kv
from octavo.kernels.threads import set_num_threads
from tests.kernels.closeness import DTYPES, assert_close

NUM_POSITIONS = 100


def angles(head_dim: int) -> Tensor:
    """[NUM_POSITIONS, head_dim / 2]"""
    frequencies = 10000.0 ** -(torch.arange(0, head_dim, 2) / head_dim)
    return torch.outer(torch.arange(NUM_POSITIONS).float(), frequencies)


def exact_rotation(heads: Tensor, positions: Tensor) -> Tensor:
    """Dimension i and i + d/2 are the real and imaginary part of one number."""
    real, imaginary = heads.double().chunk(2, dim=-1)
    turn = torch.polar(torch.ones(()).double(), angles(heads.shape[-1]).double())
    turned = torch.complex(real, imaginary) * turn[positions].unsqueeze(1)
    return torch.cat([turned.real, turned.imag], dim=-1)


@dataclass
class Step:
    """Tokens of one step, in a fused qkv output, and a cache full of NaN."""

    q: Tensor
    k: Tensor
    v: Tensor
    positions: Tensor
    pages: KvPages
    slot_mapping: Tensor

    @staticmethod
    def random(
        num_tokens: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        cache_dtype: torch.dtype | None = None,
    ) -> "Step":
        fused = torch.randn(num_tokens, num_heads + 2 * num_kv_heads, head_dim).to(dtype)
        q, kv = fused[:, :num_heads], fused[:, num_heads:]
        k, v = kv[:, :num_kv_heads], kv[:, num_kv_heads:]
        block_size = 5
        num_blocks = num_tokens // block_size + 3
        cache_dtype = cache_dtype or dtype
        shape = (num_blocks, num_kv_heads, 2, page_size(block_size, head_dim, cache_dtype))
        # Four bytes of -1 are NaN, if they are a scale.
        nobodys = math.nan if cache_dtype.is_floating_point else -1
        pages = KvPages(torch.full(shape, nobodys, dtype=cache_dtype), block_size, head_dim)
        slots = torch.randperm(num_blocks * block_size)[:num_tokens]
        positions = torch.randint(NUM_POSITIONS, (num_tokens,))
        return Step(q, k, v, positions, pages, slots)

    def run(self) -> None:
        phases = angles(self.q.shape[2])
        cos_sin = torch.cat([phases.cos(), phases.sin()], dim=1)
        rope_and_store_kv(
            self.q,
            self.k,
            self.v,
            cos_sin,
            self.positions,
            self.pages,
            self.slot_mapping,
        )


def check(step: Step) -> None:
    q, k, v = step.q.clone(), step.k.clone(), step.v.clone()
    step.run()
    assert_close(step.q, exact_rotation(q, step.positions))
    assert torch.equal(step.k, k) and torch.equal(step.v, v)
    keys, values = step.pages.read(torch.arange(len(step.pages.tensor)), NUM_POSITIONS**2)
    assert_close(keys[step.slot_mapping], exact_rotation(k, step.positions))
    assert torch.equal(values[step.slot_mapping], v)
    is_free = torch.ones(len(keys), dtype=torch.bool)
    is_free[step.slot_mapping] = False
    assert keys[is_free].isnan().all() and values[is_free].isnan().all()


@DTYPES
@pytest.mark.parametrize("head_dim", [16, 18, 64, 72, 80, 128, 256])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(1, 1), (9, 3), (8, 1)])
def test_rotates_and_stores(
    cpu: ctypes.CDLL, num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    check(Step.random(13, num_heads, num_kv_heads, head_dim, dtype))


@DTYPES
def test_works_without_a_compiler(no_library: None, dtype: torch.dtype) -> None:
    check(Step.random(7, 4, 2, 32, dtype))


@DTYPES
def test_a_long_step_on_several_threads(cpu: ctypes.CDLL, dtype: torch.dtype) -> None:
    set_num_threads(3)
    check(Step.random(301, 9, 3, 64, dtype))


def test_a_token_gets_the_same_bits_alone(cpu: ctypes.CDLL) -> None:
    step = Step.random(50, 3, 1, 72, torch.float32)
    alone = step.q.clone()
    step.run()
    for token in range(50):
        one = slice(token, token + 1)
        lone = Step(
            alone[one],
            step.k[one],
            step.v[one],
            step.positions[one],
            replace(step.pages, tensor=torch.zeros_like(step.pages.tensor)),
            step.slot_mapping[one],
        )
        lone.run()
        slot = step.slot_mapping[token]
        assert torch.equal(lone.q[0], step.q[token])
        block, lane = slot.view(1) // 5, int(slot % 5)
        for ours, whole in zip(lone.pages.read(block, 5), step.pages.read(block, 5), strict=True):
            assert torch.equal(ours[lane], whole[lane])


@DTYPES
@pytest.mark.parametrize("head_dim", [2, 16, 18, 64, 72, 256])
def test_a_cache_of_bytes_holds_what_the_reference_makes_of_the_numbers(
    cpu: ctypes.CDLL, head_dim: int, dtype: torch.dtype
) -> None:
    set_num_threads(3)
    step = Step.random(301, 4, 2, head_dim, dtype)
    step.k[3], step.v[4] = 0, 1e-35
    in_bytes = Step.random(301, 4, 2, head_dim, dtype, torch.int8)
    in_bytes = replace(step, q=step.q.clone(), pages=in_bytes.pages)
    step.run()
    in_bytes.run()
    assert torch.equal(in_bytes.q, step.q)
    blocks = torch.arange(len(step.pages.tensor))
    keys, values = step.pages.read(blocks, NUM_POSITIONS**2)
    expected = replace(in_bytes.pages, tensor=torch.full_like(in_bytes.pages.tensor, -1))
    expected.write(step.slot_mapping, keys[step.slot_mapping], values[step.slot_mapping])
    for ours, theirs, numbers in zip(
        in_bytes.pages.read(blocks, NUM_POSITIONS**2),
        expected.read(blocks, NUM_POSITIONS**2),
        (keys, values),
        strict=True,
    ):
        # What nobody wrote has no scale.
        assert torch.equal(ours.isnan(), theirs.isnan())
        written = ours[step.slot_mapping]
        assert torch.equal(written, theirs[step.slot_mapping])
        numbers = numbers[step.slot_mapping].float()
        half_a_byte = numbers.abs().amax(-1, keepdim=True) / 254
        assert ((written - numbers).abs() <= 1.01 * half_a_byte + 1e-34).all()


@DTYPES
def test_a_cache_of_bytes_tells_of_what_is_not_a_number(
    cpu: ctypes.CDLL, dtype: torch.dtype
) -> None:
    step = Step.random(6, 4, 2, 16, dtype, torch.int8)
    step.k[1, 0, 3], step.v[2, 1, 5] = math.inf, math.nan
    step.run()
    keys, values = step.pages.read(torch.arange(len(step.pages.tensor)), NUM_POSITIONS)
    is_nan = torch.zeros(2, 6, 2, dtype=torch.bool)
    is_nan[0, 1, 0] = is_nan[1, 2, 1] = True
    found = torch.stack([keys[step.slot_mapping], values[step.slot_mapping]]).isnan()
    assert torch.equal(found, is_nan.unsqueeze(-1).expand(found.shape))
