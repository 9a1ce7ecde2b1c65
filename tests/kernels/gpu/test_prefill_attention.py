"""Attention of prompts and chunks against plain softmax attention in double precision."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from octavo.kernels.gpu import prefill_attention as module
from octavo.kernels.gpu.architecture import ARCHITECTURES, Architecture
from octavo.kernels.gpu.prefill_attention import prefill_attention
from octavo.kernels.gpu.prefill_launch import LAUNCHES
from tests.kernels.gpu.paged_batch import NOWHERE, PagedBatch

FP8 = torch.float8_e4m3fn
# (sequence length, new tokens): whole prompts, chunks, decoding, nothing new; around the tiles of
# 128 keys and the blocks of 64 tokens.
REQUESTS = [(1, 1), (5, 5), (64, 64), (65, 65), (128, 1), (129, 2), (70, 0), (200, 70), (300, 33)]
REQUESTS += [(256, 128), (63, 1)]


def run(
    batch: PagedBatch,
    *,
    window: int = 0,
    soft_cap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    num_unused: int = 0,
) -> Tensor:
    unused = torch.full((num_unused, *batch.queries[0].shape[1:]), math.nan)
    return prefill_attention(
        torch.cat([*batch.queries, unused.to(batch.queries[0])]),
        batch.k_cache,
        batch.v_cache,
        batch.block_tables.to(batch.device),
        batch.seq_lens,
        batch.query_start_loc,
        batch.scale,
        window=window,
        soft_cap=soft_cap,
        k_scale=k_scale,
        v_scale=v_scale,
    )


@pytest.mark.parametrize("heads", [(4, 2), (7, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_awkward_lengths_in_one_batch(
    device: str, dtype: torch.dtype, heads: tuple[int, int]
) -> None:
    batch = PagedBatch.random(REQUESTS, device, heads=heads, dtype=dtype)
    batch.check(run(batch))


@pytest.mark.parametrize("head_dim", [16, 64, 80, 96, 128, 256])
def test_head_dims(device: str, head_dim: int) -> None:
    requests = [(150, 20), (33, 33)]
    batch = PagedBatch.random(requests, device, head_dim=head_dim, dtype=torch.bfloat16)
    batch.check(run(batch))


@pytest.mark.parametrize("head_dim", [128, 256])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_launches_of_all_gpus(
    device: str, monkeypatch: pytest.MonkeyPatch, architecture: Architecture, head_dim: int
) -> None:
    launches = replace(LAUNCHES, reasoned=lambda shape, _: LAUNCHES.reasoned(shape, architecture))
    monkeypatch.setattr(module, "LAUNCHES", launches)
    batch = PagedBatch.random([(150, 20), (70, 70)], device, head_dim=head_dim, dtype=torch.float16)
    batch.check(run(batch))


@pytest.mark.parametrize("block_size", [16, 32, 64, 256])
def test_block_sizes(device: str, block_size: int) -> None:
    batch = PagedBatch.random([(300, 40), (65, 65), (16, 1)], device, block_size=block_size)
    batch.check(run(batch))


def test_many_heads_of_one_kv_head(device: str) -> None:
    batch = PagedBatch.random([(200, 9), (5, 5)], device, heads=(48, 1))
    batch.check(run(batch))


@pytest.mark.parametrize("window", [1, 40, 128, 250])
def test_a_window_reads_nothing_before_it(device: str, window: int) -> None:
    batch = PagedBatch.random([(600, 150), (300, 1), (200, 200), (30, 7)], device)
    batch.drop_blocks_before(window)
    batch.check(run(batch, window=window), window=window)


@pytest.mark.parametrize("window", [0, 100])
def test_soft_cap(device: str, window: int) -> None:
    batch = PagedBatch.random([(300, 140), (20, 20)], device)
    batch.check(run(batch, window=window, soft_cap=1.5), window=window, soft_cap=1.5)


@pytest.mark.parametrize("head_dim", [64, 128])
def test_a_cache_of_8_bits(device: str, head_dim: int) -> None:
    batch = PagedBatch.random(
        [(300, 140), (20, 20)], device, head_dim=head_dim, dtype=torch.float16, cache_dtype=FP8
    )
    batch.check(run(batch, k_scale=0.5, v_scale=3.0), k_scale=0.5, v_scale=3.0)


def test_requests_share_blocks(device: str) -> None:
    batch = PagedBatch.random([(100, 30), (70, 6), (300, 200)], device)
    batch.share_blocks(giver=0, taker=1, num_blocks=4)
    batch.share_blocks(giver=0, taker=2, num_blocks=6)
    batch.check(run(batch))


def test_tokens_of_no_request_are_left_alone(device: str) -> None:
    batch = PagedBatch.random([(100, 30), (40, 40)], device)
    out = run(batch, num_unused=90)
    batch.check(out)
    assert out[70:].isnan().all()


@pytest.mark.parametrize("window", [0, 40])
def test_requests_that_only_fill_the_batch_up_get_zeros(device: str, window: int) -> None:
    batch = PagedBatch.random([(100, 30), (7, 3), (1, 1)], device)
    seq_lens = batch.seq_lens
    seq_lens[1:] = 0
    batch.block_tables[1:] = NOWHERE
    out = prefill_attention(
        torch.cat(batch.queries),
        batch.k_cache,
        batch.v_cache,
        batch.block_tables.to(device),
        seq_lens,
        batch.query_start_loc,
        batch.scale,
        window=window,
    )
    assert (out[30:] == 0).all()
    for kept in (batch.queries, batch.keys, batch.values):
        del kept[1:]
    batch.check(out, window=window)


def test_a_prompt_in_chunks_is_what_it_is_as_a_whole(device: str) -> None:
    whole = PagedBatch.random([(333, 333)], device)
    out = run(whole)
    for first, last in ((0, 50), (50, 51), (51, 256), (256, 333)):
        keys, values = whole.keys[0][:last], whole.values[0][:last]
        caches = (whole.k_cache, whole.v_cache, whole.block_tables)
        chunk = PagedBatch([whole.queries[0][first:last]], [keys], [values], *caches)
        torch.testing.assert_close(run(chunk), out[first:last], rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_a_request_that_is_not_a_number_disturbs_no_other(device: str) -> None:
    batch = PagedBatch.random([(100, 30), (140, 20)], device)
    clean = run(batch)
    batch.queries[0].fill_(math.nan)
    poisoned = run(batch)
    assert poisoned[:30].isnan().all()
    assert torch.equal(poisoned[30:], clean[30:])
