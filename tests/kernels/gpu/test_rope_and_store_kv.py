"""Rotary embedding on a GPU against complex rotation in double precision, slot by slot."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from octavo.kernels.gpu.rope_and_store_kv import rope_and_store_kv
from tests.kernels.closeness import assert_close

NUM_POSITIONS = 50
BLOCK_SIZE = 16
EPS = 1e-5
FP8 = torch.float8_e4m3fn

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
HEADS = pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(1, 1), (9, 3), (8, 1), (14, 2)])


def angles(rotary_dim: int) -> Tensor:
    frequencies = 100.0 ** -(torch.arange(0, rotary_dim, 2).double() / rotary_dim)
    return torch.arange(NUM_POSITIONS).double()[:, None] * frequencies


def exact_rotation(heads: Tensor, positions: Tensor, rotary_dim: int) -> Tensor:
    turn = torch.polar(torch.ones(()).double(), angles(rotary_dim).to(heads.device))
    rotated, rest = heads.double().tensor_split([rotary_dim], dim=-1)
    half = rotary_dim // 2
    turned = torch.complex(rotated[..., :half], rotated[..., half:]) * turn[positions].unsqueeze(1)
    return torch.cat([turned.real, turned.imag, rest], dim=-1)


def exact_norm(heads: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return heads.double()
    wide = heads.double()
    return wide / (wide.square().mean(-1, keepdim=True) + EPS).sqrt() * weight.double()


@dataclass
class Step:
    """Tokens of one step, in a fused qkv output, and a cache full of NaN."""

    q: Tensor
    k: Tensor
    v: Tensor
    positions: Tensor
    k_cache: Tensor
    v_cache: Tensor
    slot_mapping: Tensor

    @staticmethod
    def random(
        device: str,
        num_tokens: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        cache_dtype: torch.dtype | None = None,
    ) -> "Step":
        fused = torch.randn(num_tokens, num_heads + 2 * num_kv_heads, head_dim).to(device, dtype)
        q, k, v = fused.split_with_sizes((num_heads, num_kv_heads, num_kv_heads), dim=1)
        num_blocks = num_tokens // BLOCK_SIZE + 2
        empty = torch.full((num_blocks, BLOCK_SIZE, num_kv_heads, head_dim), torch.nan)
        k_cache, v_cache = torch.stack([empty, empty]).to(device, cache_dtype or dtype)
        slots = torch.randperm(num_blocks * BLOCK_SIZE)[:num_tokens].to(device)
        positions = torch.randint(NUM_POSITIONS, (num_tokens,)).to(device)
        return Step(q, k, v, positions, k_cache, v_cache, slots)

    def run(
        self,
        rotary_dim: int | None = None,
        *,
        norms: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
        k_scale: float = 1.0,
        v_scale: float = 1.0,
        rotated: Tensor | None = None,
    ) -> None:
        phases = angles(rotary_dim or self.q.shape[2])
        rope_and_store_kv(
            self.q,
            self.k,
            self.v,
            torch.cat([phases.cos(), phases.sin()], dim=1).float().to(self.q.device),
            self.positions,
            self.k_cache,
            self.v_cache,
            self.slot_mapping,
            q_norm=norms[0],
            k_norm=norms[1],
            eps=EPS,
            k_scale=k_scale,
            v_scale=v_scale,
            rotated=rotated,
        )

    def slots_of(self, cache: Tensor) -> Tensor:
        return cache.flatten(0, 1)

    def free_slots_are_untouched(self) -> bool:
        is_free = torch.ones(len(self.k_cache) * BLOCK_SIZE, dtype=torch.bool)
        is_free[self.slot_mapping[self.slot_mapping >= 0].cpu()] = False
        caches = (self.slots_of(cache).float().cpu() for cache in (self.k_cache, self.v_cache))
        return all(bool(cache[is_free].isnan().all()) for cache in caches)


def check(step: Step, rotary_dim: int, norms: tuple[Tensor, Tensor] | tuple[None, None]) -> None:
    q, k, v = step.q.clone(), step.k.clone(), step.v.clone()
    step.run(rotary_dim, norms=norms)
    slack = 2.0 if norms[0] is not None else 1.0
    expected = exact_rotation(exact_norm(q, norms[0]), step.positions, rotary_dim)
    assert_close(step.q, expected, slack=slack)
    assert torch.equal(step.k, k) and torch.equal(step.v, v)
    is_kept = step.slot_mapping >= 0
    slots = step.slot_mapping[is_kept]
    expected = exact_rotation(exact_norm(k, norms[1]), step.positions, rotary_dim)
    assert_close(step.slots_of(step.k_cache)[slots], expected[is_kept], slack=slack)
    assert torch.equal(step.slots_of(step.v_cache)[slots], v[is_kept])
    assert step.free_slots_are_untouched()


@DTYPES
@HEADS
@pytest.mark.parametrize("head_dim", [16, 80, 128])
def test_rotates_and_stores(
    device: str, num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    check(Step.random(device, 5, num_heads, num_kv_heads, head_dim, dtype), head_dim, (None, None))


@DTYPES
@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(64, 64), (80, 32), (96, 72), (128, 128)])
def test_normalises_heads_first(
    device: str, head_dim: int, rotary_dim: int, dtype: torch.dtype
) -> None:
    norms = torch.randn(2, head_dim).to(device, dtype)
    check(Step.random(device, 7, 6, 2, head_dim, dtype), rotary_dim, (norms[0], norms[1]))


@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(80, 32), (128, 64), (96, 72)])
def test_dimensions_past_the_rotated_ones_are_left(
    device: str, head_dim: int, rotary_dim: int
) -> None:
    step = Step.random(device, 7, 6, 2, head_dim, torch.float16)
    check(step, rotary_dim, (None, None))


def test_a_token_without_a_slot_is_written_nowhere(device: str) -> None:
    step = Step.random(device, 9, 4, 2, 64, torch.float16)
    step.slot_mapping[torch.tensor([0, 4, 8])] = -1
    check(step, 64, (None, None))


def test_rotated_queries_go_where_they_are_wanted(device: str) -> None:
    step = Step.random(device, 9, 6, 2, 64, torch.float16)
    q = step.q.clone()
    # Room for more tokens, whose heads are further apart.
    rotated = torch.full((12, 8, 64), torch.nan, dtype=torch.float16, device=device)
    step.run(rotated=rotated[:9, :6])
    assert torch.equal(step.q, q)
    assert_close(rotated[:9, :6], exact_rotation(q, step.positions, 64))
    assert rotated[9:].isnan().all() and rotated[:, 6:].isnan().all()


def test_positions_and_slots_may_be_32_bits_wide(device: str) -> None:
    step = Step.random(device, 9, 4, 2, 64, torch.float16)
    step.positions, step.slot_mapping = step.positions.int(), step.slot_mapping.int()
    check(step, 64, (None, None))


def test_a_cache_of_8_bits_holds_scaled_numbers(device: str) -> None:
    step = Step.random(device, 9, 4, 2, 64, torch.float16, FP8)
    step.k[3, 1, 5], step.v[4, 0, 6] = 3000.0, -2000.0
    k, v = step.k.clone(), step.v.clone()
    step.run(k_scale=0.5, v_scale=2.0)
    keys = step.slots_of(step.k_cache)[step.slot_mapping].double() * 0.5
    values = step.slots_of(step.v_cache)[step.slot_mapping].double() * 2.0
    expected = exact_rotation(k, step.positions, 64).clamp(-224, 224)
    torch.testing.assert_close(keys, expected, rtol=2**-4, atol=2**-10)
    exact = (v.float() / 2).clamp(-448, 448).to(FP8).double() * 2
    assert torch.equal(values, exact)
    assert step.free_slots_are_untouched()
