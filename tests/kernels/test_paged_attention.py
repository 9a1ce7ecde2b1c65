"""Paged attention against plain softmax attention, over awkward lengths and block tables."""

import ctypes
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from octavo.kernels.paged_attention import paged_attention
from octavo.kernels.threads import set_num_threads
from tests.kernels.attention_batch import Batch, exact, exact_in_bytes, in_bytes
from tests.kernels.closeness import DTYPES, assert_close

# (sequence length, new tokens): decoding, whole prompts, chunks; around the vectors, the
# tiles of 128 keys and the segments of 1024.
REQUESTS = [(1, 1), (5, 5), (63, 1), (64, 64), (65, 2), (129, 129), (200, 70), (64, 1), (131, 1)]
REQUESTS += [(128, 3), (1025, 1), (1100, 80), (70, 0)]


class Kind(NamedTuple):
    """Types of what the model computes with, and of the cache."""

    dtype: torch.dtype
    cache_dtype: torch.dtype


KINDS = pytest.mark.parametrize(
    "kind",
    [
        Kind(torch.float32, torch.float32),
        Kind(torch.bfloat16, torch.bfloat16),
        Kind(torch.float32, torch.int8),
        Kind(torch.bfloat16, torch.int8),
    ],
    ids=["float32", "bfloat16", "int8-of-float32", "int8-of-bfloat16"],
)


def check(batch: Batch, *, slack: float = 4) -> None:
    for request, out in enumerate(batch.run()):
        if batch.pages.dtype == torch.int8:
            check_bytes(out, exact_in_bytes(batch, request), slack=slack)
        else:
            # Scores are around 10 here, and their rounding errors that much larger than those of 1.
            assert_close(out, exact(batch, request), slack=slack)


def check_bytes(out: Tensor, expected: Tensor, *, slack: float) -> None:
    """Where a weight lies between two bytes, either may be taken: in few numbers that tells."""
    assert_close(out.bfloat16(), expected, slack=2 * slack)
    assert relative_error(out, expected) <= slack / 4 * 2**-8


def relative_error(out: Tensor, expected: Tensor) -> float:
    """Of all numbers together, root mean square."""
    size = expected.square().sum().sqrt().clamp(min=1e-30)
    return float((out - expected).square().sum().sqrt() / size)


@KINDS
@pytest.mark.parametrize("heads", [(1, 1), (9, 3), (8, 1), (4, 4)], ids=str)
@pytest.mark.parametrize("block_size", [1, 5, 16, 32])
def test_awkward_lengths_in_one_batch(
    cpu: ctypes.CDLL, block_size: int, heads: tuple[int, int], kind: Kind
) -> None:
    check(Batch.random(REQUESTS, heads, 32, block_size, *kind))


@KINDS
@pytest.mark.parametrize("head_dim", [16, 40, 64, 72, 80, 96, 128, 256])
def test_head_dims(cpu: ctypes.CDLL, head_dim: int, kind: Kind) -> None:
    check(Batch.random([(70, 1), (20, 20)], (4, 2), head_dim, 16, *kind))


@DTYPES
def test_works_without_a_compiler(no_library: None, dtype: torch.dtype) -> None:
    check(Batch.random(REQUESTS, (4, 2), 16, 5, dtype))


def test_without_a_compiler_bytes_are_what_they_stand_for(no_library: None) -> None:
    batch = Batch.random(REQUESTS, (4, 2), 18, 5, torch.float32, torch.int8)
    for kept in (batch.keys, batch.values):
        kept[:] = [torch.mul(*in_bytes(heads)).float() for heads in kept]
    for request, out in enumerate(batch.run()):
        assert_close(out, exact(batch, request), slack=8)


@DTYPES
def test_bytes_come_close_to_the_numbers_that_they_stand_for(
    cpu: ctypes.CDLL, dtype: torch.dtype
) -> None:
    batch = Batch.random(REQUESTS, (9, 3), 64, 16, dtype, torch.int8)
    for request, out in enumerate(batch.run()):
        assert relative_error(out, exact(batch, request)) < 0.03


def test_requests_may_share_blocks(cpu: ctypes.CDLL) -> None:
    batch = Batch.random([(40, 3), (32, 1)], (4, 2), 32, 16, torch.float32)
    batch.block_tables[1, :2] = batch.block_tables[0, :2]
    batch.keys[1], batch.values[1] = batch.keys[0][:32], batch.values[0][:32]
    check(batch)


def test_queries_may_be_a_view_of_a_fused_output(cpu: ctypes.CDLL) -> None:
    batch = Batch.random([(20, 20)], (4, 2), 32, 16, torch.float32)
    fused = torch.randn(20, 8, 32)
    fused[:, :4] = batch.queries[0]
    starts, lens = torch.tensor([0, 20]).int(), torch.tensor([20]).int()
    tables = (batch.block_tables, lens, starts)
    out = paged_attention(fused[:, :4], batch.pages, *tables, batch.scale)
    assert torch.equal(out, batch.run()[0])


@KINDS
@pytest.mark.parametrize(
    ("heads", "head_dim"), [((9, 3), 64), ((2, 2), 40), ((8, 1), 128)], ids=str
)
def test_a_token_has_the_same_bits_alone_in_any_chunk_and_with_any_number_of_threads(
    cpu: ctypes.CDLL, heads: tuple[int, int], head_dim: int, kind: Kind
) -> None:
    batch = Batch.random(REQUESTS, heads, head_dim, 16, *kind)
    set_num_threads(1)
    whole = batch.run()
    for num_threads in (2, 3):
        set_num_threads(num_threads)
        assert all(map(torch.equal, batch.run(), whole))
    for request, (_, num_new) in enumerate(REQUESTS):
        for chunk in (1, 17, 64):
            for first in range(0, num_new, chunk):
                last = min(first + chunk, num_new)
                alone = batch.only(request, first, last).run()[0]
                assert torch.equal(alone, whole[request][first:last])


@KINDS
def test_threads_share_a_chunk_of_a_long_prompt_beside_rows_that_decode(
    cpu: ctypes.CDLL, kind: Kind
) -> None:
    requests = [(length, 1) for length in range(1, 90, 3)] + [(3100, 7)]
    batch = Batch.random(requests, (6, 2), 40, 16, *kind)
    set_num_threads(1)
    alone = batch.run()
    check(batch)
    for num_threads in (2, 3, 5):
        set_num_threads(num_threads)
        assert all(map(torch.equal, batch.run(), alone))


def test_large_scores_do_not_overflow(cpu: ctypes.CDLL) -> None:
    batch = Batch.random([(100, 4)], (4, 2), 32, 16, torch.float32)
    batch.queries[0] *= 1000
    check(batch)


@KINDS
@pytest.mark.parametrize("growth", [-60, -20, 20, 60])
def test_scores_may_grow_and_shrink_from_tile_to_tile(
    cpu: ctypes.CDLL, growth: int, kind: Kind
) -> None:
    batch = Batch.random([(300, 40)], (4, 2), 64, 16, *kind)
    ramp = torch.linspace(0, growth, 300).view(-1, 1, 1)
    batch.keys[0] = (ramp / 8).expand(-1, 2, 64).to(kind.dtype)
    batch.queries[0] = torch.ones(40, 4, 64).to(kind.dtype)
    batch.write(0)
    check(batch, slack=abs(growth))


@KINDS
def test_a_request_that_is_not_a_number_disturbs_no_other(cpu: ctypes.CDLL, kind: Kind) -> None:
    batch = Batch.random([(30, 2), (40, 5)], (4, 2), 32, 16, *kind)
    clean = batch.run()[1]
    batch.queries[0].fill_(math.nan)
    poisoned, other = batch.run()
    assert poisoned.isnan().all()
    assert torch.equal(other, clean)
