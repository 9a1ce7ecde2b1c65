"""Sequences in a paged cache as a GPU has it, and what attention over them is, exactly."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# What rounding explains, relative to the size of the numbers; weights and queries are rounded too.
_TOLERANCE = {torch.float32: 8e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# A block that lies outside of all memory.
NOWHERE = 2**30


@dataclass
class PagedBatch:
    """Requests of some tokens, of which the last ones are new; memory that is no one's is NaN.

    Attributes:
        queries: of each request, [num_new_tokens, num_heads, head_dim].
        keys, values: of each request, [seq_len, num_kv_heads, head_dim], as the cache holds them.
        block_tables: behind a request's blocks there is NOWHERE.
    """

    queries: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]
    k_cache: Tensor
    v_cache: Tensor
    block_tables: Tensor

    @staticmethod
    def random(
        requests: list[tuple[int, int]],
        device: str,
        *,
        heads: tuple[int, int] = (4, 2),
        head_dim: int = 64,
        block_size: int = 16,
        dtype: torch.dtype = torch.float32,
        cache_dtype: torch.dtype | None = None,
    ) -> "PagedBatch":
        """Draw requests of (sequence length, new tokens)."""
        num_heads, num_kv_heads = heads
        needed = [-(-seq_len // block_size) for seq_len, _ in requests]
        num_blocks = sum(needed) + 3
        free = torch.randperm(num_blocks).int().tolist()
        poison = torch.full((num_blocks, block_size, num_kv_heads, head_dim), math.nan)
        tables = torch.full((len(requests), max(needed) + 2), NOWHERE, dtype=torch.int32)
        k_cache, v_cache = (poison.to(device, cache_dtype or dtype, copy=True) for _ in range(2))
        batch = PagedBatch([], [], [], k_cache, v_cache, tables)
        for request, (seq_len, num_new) in enumerate(requests):
            blocks = [free.pop() for _ in range(needed[request])]
            tables[request, : needed[request]] = torch.tensor(blocks, dtype=torch.int32)
            for cache, kept in ((batch.k_cache, batch.keys), (batch.v_cache, batch.values)):
                tokens = torch.randn(seq_len, num_kv_heads, head_dim).to(cache)
                positions = torch.arange(seq_len)
                block = tables[request, positions // block_size].long().to(device)
                cache[block, (positions % block_size).to(device)] = tokens
                kept.append(tokens)
            # Scores of about 2, so that the weights differ.
            batch.queries.append((2 * torch.randn(num_new, num_heads, head_dim)).to(device, dtype))
        return batch

    def share_blocks(self, giver: int, taker: int, num_blocks: int) -> None:
        """Have one request's first blocks be those of another."""
        num_tokens = num_blocks * self.k_cache.shape[1]
        self.block_tables[taker, :num_blocks] = self.block_tables[giver, :num_blocks]
        for kept in (self.keys, self.values):
            kept[taker][:num_tokens] = kept[giver][:num_tokens]

    def drop_blocks_before(self, window: int) -> None:
        """Give up the blocks that no new token's window reaches, and what they hold."""
        block_size = self.k_cache.shape[1]
        for request, (queries, keys) in enumerate(zip(self.queries, self.keys, strict=True)):
            first_key = max(len(keys) - len(queries) + 1 - window, 0)
            dropped = self.block_tables[request, : first_key // block_size]
            for cache in (self.k_cache, self.v_cache):
                cache[dropped.long().to(cache.device)] = math.nan
            dropped[:] = NOWHERE

    @property
    def device(self) -> torch.device:
        return self.k_cache.device

    @property
    def seq_lens(self) -> Tensor:
        return torch.tensor([len(keys) for keys in self.keys], dtype=torch.int32).to(self.device)

    @property
    def query_start_loc(self) -> Tensor:
        num_new = torch.tensor([0, *map(len, self.queries)])
        return num_new.cumsum(0).int().to(self.device)

    @property
    def scale(self) -> float:
        return 1 / math.sqrt(self.k_cache.shape[3])

    def check(
        self,
        out: Tensor,
        *,
        window: int = 0,
        soft_cap: float = 0.0,
        k_scale: float = 1.0,
        v_scale: float = 1.0,
    ) -> None:
        """Compare the first tokens of an output with the exact result."""
        pairs = list(zip(self.keys, self.values, strict=True))
        exact = [
            _attention(q, k.double() * k_scale, v.double() * v_scale, self.scale, window, soft_cap)
            for q, (k, v) in zip(self.queries, pairs, strict=True)
        ]
        expected = torch.cat(exact)
        actual = out[: len(expected)]
        error = (actual.double() - expected).abs()
        size = expected.abs() + expected.square().mean().sqrt()
        allowed = _TOLERANCE[out.dtype] * size
        assert (error <= allowed).all(), f"{(error / allowed).max():.2f} times what is allowed"


def _attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, soft_cap: float
) -> Tensor:
    """Attention in double precision over contiguous keys and values."""
    heads_per_kv_head = q.shape[1] // k.shape[1]
    k, v = (kept.repeat_interleave(heads_per_kv_head, dim=1) for kept in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q.double(), k) * scale
    if soft_cap:
        scores = soft_cap * torch.tanh(scores / soft_cap)
    positions = torch.arange(len(k), device=q.device)
    distance = positions[len(k) - len(q) :, None] - positions
    is_visible = (distance >= 0) & (distance < (window or len(k)))
    weights = scores.masked_fill(~is_visible, -math.inf).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", weights, v)
