"""Sequences in a paged cache, and attention over them in double precision."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.kernels.kv_pages import KvPages, page_size
from octavo.kernels.paged_attention import paged_attention

# Tokens whose weights are bytes of one scale, where blocks are of 16, and what fills up a block.
_TILE = 128
_LANES = 16


@dataclass
class Batch:
    """Sequences in a paged cache; whatever no sequence owns is NaN, and of int8 -1."""

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
        cache_dtype: torch.dtype | None = None,
    ) -> "Batch":
        num_heads, num_kv_heads = heads
        needed = [-(-seq_len // block_size) for seq_len, _ in requests]
        num_blocks = sum(needed) + 5
        free = torch.randperm(num_blocks).int()
        cache_dtype = cache_dtype or dtype
        shape = (num_blocks, num_kv_heads, 2, page_size(block_size, head_dim, cache_dtype))
        # Four bytes of -1 are NaN, if they are a scale.
        nobodys = math.nan if cache_dtype.is_floating_point else -1
        pages = KvPages(torch.full(shape, nobodys, dtype=cache_dtype), block_size, head_dim)
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


def exact_in_bytes(batch: Batch, request: int) -> Tensor:
    """The same, but what the kernel takes as bytes is rounded to bytes."""
    q, k, v = (kept[request].double() for kept in (batch.queries, batch.keys, batch.values))
    heads_per_kv_head = q.shape[1] // k.shape[1]
    q, k = (whole * scale for whole, scale in map(in_bytes, (q, k)))
    v, v_scale = in_bytes(v)
    k, v, v_scale = (each.repeat_interleave(heads_per_kv_head, dim=1) for each in (k, v, v_scale))
    size = batch.pages.block_size
    positions = torch.arange(len(k))
    lanes = positions // size * (-(-size // _LANES) * _LANES) + positions % size
    out = torch.zeros_like(q)
    for token in range(len(q)):
        visible = len(k) - len(q) + token + 1
        scores = (k[:visible] * q[token]).sum(-1) * batch.scale
        weights = scores.softmax(0)
        for tile in range(int(lanes[visible - 1]) // _TILE + 1):
            of_tile = lanes[:visible] // _TILE == tile
            scaled = weights[of_tile] * v_scale[:visible, :, 0][of_tile]
            step = scaled.amax(0) / 255
            whole = torch.where(step > 0, scaled / step, 0).round()
            out[token] += torch.einsum("kh,khd,h->hd", whole, v[:visible][of_tile], step)
    return out


def in_bytes(heads: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers up to 127 as [..., head_dim], and [..., 1]: what they are multiplied by."""
    largest = heads.float().abs().amax(-1, keepdim=True)
    # In single precision, as numbers that lie between two bytes often are exactly in the middle.
    whole = (heads.float() * (torch.tensor(127.0) / largest)).round().nan_to_num()
    return whole.double(), largest.double() / 127
