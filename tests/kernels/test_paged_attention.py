"""Paged attention against plain softmax attention, over awkward lengths and block tables."""

import ctypes
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from octavo.kernels.kv_pages import KvPages, page_size
from octavo.kernels.paged_attention import paged_attention
from octavo.kernels.threads import set_num_threads
from tests.kernels.closeness import DTYPES, assert_close

# (sequence length, new tokens): decoding, whole prompts, chunks; around the vectors, the
# tiles of 128 keys and the segments of 1024.
REQUESTS = [(1, 1), (5, 5), (63, 1), (64, 64), (65, 2), (129, 129), (200, 70), (64, 1), (131, 1)]
REQUESTS += [(128, 3), (1025, 1), (1100, 80), (70, 0)]


@dataclass
class Batch:
    """Sequences in a paged cache; whatever no sequence owns is NaN."""

    queries: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]
    pages: KvPages
    block_tables: Tensor

    @staticmethod
    def random(
        requests: list[tuple[int, int]],
        heads: tuple[int, int],
        head_dim: int,
        block_size: int,
        dtype: torch.dtype,
    ) -> "Batch":
        num_heads, num_kv_heads = heads
        needed = [-(-seq_len // block_size) for seq_len, _ in requests]
        num_blocks = sum(needed) + 5
        free = torch.randperm(num_blocks).int()
        shape = (num_blocks, num_kv_heads, 2, page_size(block_size, head_dim))
        pages = KvPages(torch.full(shape, math.nan).to(dtype), block_size, head_dim)
        # Entries past a request's blocks point outside of all memory.
        tables = torch.full((len(requests), max(needed) + 3), 2**30, dtype=torch.int32)
        batch = Batch([], [], [], pages, tables)
        for i, (seq_len, num_new) in enumerate(requests):
            tables[i, : needed[i]], free = free[: needed[i]], free[needed[i] :]
            for kept in (batch.keys, batch.values):
                kept.append(torch.randn(seq_len, num_kv_heads, head_dim).to(dtype))
            batch.write(i)
            batch.queries.append((3 * torch.randn(num_new, num_heads, head_dim)).to(dtype))
        return batch

    def write(self, request: int) -> None:
        """Put a request's keys and values into the cache."""
        size, table = self.pages.block_size, self.block_tables[request]
        positions = torch.arange(len(self.keys[request]))
        slots = table[positions // size] * size + positions % size
        self.pages.write(slots, self.keys[request], self.values[request])

    def run(self) -> list[Tensor]:
        num_new = torch.tensor([len(q) for q in self.queries])
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), num_new.cumsum(0)])
        out = paged_attention(
            torch.cat(self.queries),
            self.pages,
            self.block_tables,
            torch.tensor([len(k) for k in self.keys], dtype=torch.int32),
            starts.int(),
            self.scale,
        )
        return [out[start:end] for start, end in zip(starts, starts[1:], strict=False)]

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.pages.head_dim)

    def only(self, request: int, first: int, last: int) -> "Batch":
        """The same request alone, and of its new tokens only [first, last)."""
        one = slice(request, request + 1)
        length = len(self.keys[request]) - len(self.queries[request]) + last
        return Batch(
            [self.queries[request][first:last]],
            [self.keys[request][:length]],
            [self.values[request][:length]],
            self.pages,
            self.block_tables[one],
        )


def exact(batch: Batch, request: int) -> Tensor:
    """One query at a time over contiguous keys and values, in double precision."""
    q, k, v = (kept[request].double() for kept in (batch.queries, batch.keys, batch.values))
    heads_per_kv_head = q.shape[1] // k.shape[1]
    k, v = (kept.repeat_interleave(heads_per_kv_head, dim=1) for kept in (k, v))
    out = torch.zeros_like(q)
    for token in range(len(q)):
        visible = len(k) - len(q) + token + 1
        scores = (k[:visible] * q[token]).sum(-1) * batch.scale
        out[token] = (scores.softmax(0).unsqueeze(-1) * v[:visible]).sum(0)
    return out


def check(batch: Batch, *, slack: float = 4) -> None:
    for request, out in enumerate(batch.run()):
        # Scores are around 10 here, and their rounding errors that much larger than those of 1.
        assert_close(out, exact(batch, request), slack=slack)


@DTYPES
@pytest.mark.parametrize("heads", [(1, 1), (9, 3), (8, 1), (4, 4)], ids=str)
@pytest.mark.parametrize("block_size", [1, 5, 16, 32])
def test_awkward_lengths_in_one_batch(
    cpu: ctypes.CDLL, block_size: int, heads: tuple[int, int], dtype: torch.dtype
) -> None:
    check(Batch.random(REQUESTS, heads, 32, block_size, dtype))


@DTYPES
@pytest.mark.parametrize("head_dim", [16, 40, 64, 72, 80, 96, 128, 256])
def test_head_dims(cpu: ctypes.CDLL, head_dim: int, dtype: torch.dtype) -> None:
    check(Batch.random([(70, 1), (20, 20)], (4, 2), head_dim, 16, dtype))


@DTYPES
def test_works_without_a_compiler(no_library: None, dtype: torch.dtype) -> None:
    check(Batch.random(REQUESTS, (4, 2), 16, 5, dtype))


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


@DTYPES
@pytest.mark.parametrize(
    ("heads", "head_dim"), [((9, 3), 64), ((2, 2), 40), ((8, 1), 128)], ids=str
)
def test_a_token_has_the_same_bits_alone_in_any_chunk_and_with_any_number_of_threads(
    cpu: ctypes.CDLL, heads: tuple[int, int], head_dim: int, dtype: torch.dtype
) -> None:
    batch = Batch.random(REQUESTS, heads, head_dim, 16, dtype)
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


@DTYPES
def test_threads_share_a_chunk_of_a_long_prompt_beside_rows_that_decode(
    cpu: ctypes.CDLL, dtype: torch.dtype
) -> None:
    requests = [(length, 1) for length in range(1, 90, 3)] + [(3100, 7)]
    batch = Batch.random(requests, (6, 2), 40, 16, dtype)
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


@DTYPES
@pytest.mark.parametrize("growth", [-60, -20, 20, 60])
def test_scores_may_grow_and_shrink_from_tile_to_tile(
    cpu: ctypes.CDLL, growth: int, dtype: torch.dtype
) -> None:
    batch = Batch.random([(300, 40)], (4, 2), 64, 16, dtype)
    ramp = torch.linspace(0, growth, 300).view(-1, 1, 1)
    batch.keys[0] = (ramp / 8).expand(-1, 2, 64).to(dtype)
    batch.queries[0] = torch.ones(40, 4, 64).to(dtype)
    batch.write(0)
    check(batch, slack=abs(growth))


def test_a_request_that_is_not_a_number_disturbs_no_other(cpu: ctypes.CDLL) -> None:
    batch = Batch.random([(30, 2), (40, 5)], (4, 2), 32, 16, torch.float32)
    clean = batch.run()[1]
    batch.queries[0].fill_(math.nan)
    poisoned, other = batch.run()
    assert poisoned.isnan().all()
    assert torch.equal(other, clean)
