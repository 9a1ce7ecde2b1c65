"""Paged attention: decode, prefill and mixed batches over blocks anywhere in the cache."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from octavo.kernels.gpu.decode_attention import decode_attention
from octavo.kernels.gpu.decode_work import DecodeWork, plan_decode_work
from octavo.kernels.gpu.prefill_attention import prefill_attention
from octavo.kernels.kv_blocks import KvBlocks
from octavo.kernels.paged_attention import paged_attention_reference

from .kernel_case import Cost, Inputs, KernelCase, at_once
from .models import ModelShape

# (requests, tokens in the cache of each), one after another.
Groups = Sequence[tuple[int, int]]

UNBALANCED: Groups = [(1, 65_536), (15, 4096)]
# As much to read, in requests of one length.
BALANCED: Groups = [(16, 7936)]
DECODES: Sequence[Groups] = (
    [(32, 4096)],
    UNBALANCED,
    BALANCED,
    [(1, 4096)],
    [(8, 1024)],
    [(64, 4096)],
    [(256, 1024)],
    [(1, 131_072)],
)
# (new tokens, tokens in the cache with them) of each request.
PREFILLS: Sequence[Sequence[tuple[int, int]]] = (
    [(8192, 8192)],
    [(2048, 2048)],
    [(512, 512)],
    [(1024, 3072)],
    [*[(1, 1024)] * 64, (2048, 2048)],
)


def decode_cases(
    model: ModelShape, batches: Sequence[Groups], block_size: int
) -> Iterator[KernelCase]:
    for groups in batches:
        requests = [(1, length) for count, length in groups for _ in range(count)]
        shape = decode_shape(model, groups, block_size)
        yield _case(model, "decode_attention", shape, requests, block_size)


def prefill_cases(
    model: ModelShape, batches: Sequence[Sequence[tuple[int, int]]], block_size: int
) -> Iterator[KernelCase]:
    for requests in batches:
        shape = prefill_shape(model, requests, block_size)
        yield _case(model, "prefill_attention", shape, list(requests), block_size)


def decode_shape(model: ModelShape, groups: Groups, block_size: int) -> str:
    """Return how the table names a batch."""
    told = " + ".join(f"{count} x {_tokens(length)}" for count, length in groups)
    return f"{told}, {_layout(model, block_size)}"


def prefill_shape(model: ModelShape, requests: Sequence[tuple[int, int]], block_size: int) -> str:
    """Return how the table names a batch: new tokens, of as many with those in the cache."""
    told = " + ".join(
        f"{count} x {_tokens(new)} of {_tokens(length)}"
        for (new, length), count in Counter(requests).items()
    )
    return f"{told}, {_layout(model, block_size)}"


def _tokens(count: int) -> str:
    return str(count) if count % 1024 else f"{count // 1024}K"


def _layout(model: ModelShape, block_size: int) -> str:
    return f"heads {model.num_heads}/{model.num_kv_heads} x {model.head_dim}, block {block_size}"


def _case(
    model: ModelShape, name: str, shape: str, requests: list[tuple[int, int]], block_size: int
) -> KernelCase:
    scale = 1 / math.sqrt(model.head_dim)

    def make(device: str, dtype: torch.dtype) -> Inputs:
        return _inputs(model, requests, block_size, device, dtype)

    def decode(
        q: Tensor, k_cache: Tensor, v_cache: Tensor, tables: Tensor, lengths: Tensor, _: Tensor
    ) -> Callable[[], Tensor]:
        work = DecodeWork.allocate(k_cache, model.num_heads, len(lengths))
        plan_decode_work(work, lengths)
        return partial(decode_attention, q, k_cache, v_cache, tables, lengths, scale, work)

    def prefill(
        q: Tensor, k_cache: Tensor, v_cache: Tensor, tables: Tensor, lengths: Tensor, starts: Tensor
    ) -> Tensor:
        return prefill_attention(q, k_cache, v_cache, tables, lengths, starts, scale)

    def reference(
        q: Tensor, k_cache: Tensor, v_cache: Tensor, tables: Tensor, lengths: Tensor, starts: Tensor
    ) -> Tensor:
        pages = KvBlocks(k_cache, v_cache)
        return paged_attention_reference(q, pages, tables, lengths, starts, scale)

    return KernelCase(
        name,
        shape,
        make,
        decode if name == "decode_attention" else at_once(prefill),
        reference,
        lambda inputs: _cost(model, requests, inputs[0].itemsize),
    )


def _inputs(
    model: ModelShape,
    requests: list[tuple[int, int]],
    block_size: int,
    device: str,
    dtype: torch.dtype,
) -> Inputs:
    new, lengths = torch.tensor(requests, dtype=torch.int32).T.contiguous()
    num_blocks = (lengths + block_size - 1) // block_size
    shuffled = torch.randperm(int(num_blocks.sum())).int().split_with_sizes(num_blocks.tolist())
    tables = torch.nn.utils.rnn.pad_sequence(list(shuffled), batch_first=True)
    starts = torch.nn.functional.pad(new.cumsum(0), (1, 0)).int()
    heads = (model.num_heads, model.head_dim)
    cache = (int(num_blocks.sum()), block_size, model.num_kv_heads, model.head_dim)
    q = torch.randn(int(new.sum()), *heads, device=device, dtype=dtype)
    k_cache, v_cache = (torch.randn(cache, device=device, dtype=dtype) for _ in range(2))
    return [q, k_cache, v_cache, *(each.to(device) for each in (tables, lengths, starts))]


def _cost(model: ModelShape, requests: list[tuple[int, int]], itemsize: int) -> Cost:
    """Keys and values are read once, queries and answers moved; a causal triangle is computed."""
    num_new = sum(new for new, _ in requests)
    num_read = sum(length for _, length in requests)
    # A token sees those before it and itself.
    num_seen = sum(new * length - new * (new - 1) // 2 for new, length in requests)
    moved = 2 * num_new * model.num_heads + 2 * num_read * model.num_kv_heads
    flops = 4 * num_seen * model.num_heads * model.head_dim
    return Cost(moved * model.head_dim * itemsize, flops)
