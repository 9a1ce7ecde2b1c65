"""Attention of a decode step against plain softmax attention in double precision."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from octavo.kernels.gpu import decode_work
from octavo.kernels.gpu.architecture import ARCHITECTURES, Architecture
from octavo.kernels.gpu.decode_attention import decode_attention
from octavo.kernels.gpu.decode_work import LAUNCHES, DecodeWork, plan_decode_work
from tests.kernels.gpu.paged_batch import PagedBatch

FP8 = torch.float8_e4m3fn
# Around the tiles of 64 and 128 tokens; of the longest, each program has a part.
LENGTHS = [1, 63, 64, 65, 5, 700, 128, 129, 17]


def decoding(*lengths: int, query_len: int = 1) -> list[tuple[int, int]]:
    return [(length, query_len) for length in lengths]


def run(
    batch: PagedBatch,
    work: DecodeWork,
    *,
    soft_cap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
) -> Tensor:
    plan_decode_work(work, batch.seq_lens)
    return decode_attention(
        torch.cat(batch.queries),
        batch.k_cache,
        batch.v_cache,
        batch.block_tables.to(batch.device),
        batch.seq_lens,
        batch.scale,
        work,
        soft_cap=soft_cap,
        k_scale=k_scale,
        v_scale=v_scale,
    )


def work_for(batch: PagedBatch, *, window: int = 0) -> DecodeWork:
    query_len, num_heads, _ = batch.queries[0].shape
    return DecodeWork.allocate(batch.k_cache, num_heads, len(batch.queries), query_len, window)


@pytest.mark.parametrize("heads", [(4, 2), (7, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_awkward_lengths_in_one_batch(
    device: str, dtype: torch.dtype, heads: tuple[int, int]
) -> None:
    batch = PagedBatch.random(decoding(*LENGTHS), device, heads=heads, dtype=dtype)
    batch.check(run(batch, work_for(batch)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_launches_of_all_gpus(
    device: str, monkeypatch: pytest.MonkeyPatch, architecture: Architecture
) -> None:
    launches = replace(LAUNCHES, reasoned=lambda shape, _: LAUNCHES.reasoned(shape, architecture))
    monkeypatch.setattr(decode_work, "LAUNCHES", launches)
    batch = PagedBatch.random(decoding(1, 65, 300), device, head_dim=128, dtype=torch.float16)
    batch.check(run(batch, work_for(batch)))


@pytest.mark.parametrize("head_dim", [16, 64, 80, 96, 128, 256])
def test_head_dims(device: str, head_dim: int) -> None:
    batch = PagedBatch.random(decoding(150, 33), device, head_dim=head_dim, dtype=torch.bfloat16)
    batch.check(run(batch, work_for(batch)))


@pytest.mark.parametrize("block_size", [16, 32, 64, 256])
def test_block_sizes(device: str, block_size: int) -> None:
    batch = PagedBatch.random(decoding(300, 65, 16), device, block_size=block_size)
    batch.check(run(batch, work_for(batch)))


@pytest.mark.parametrize("query_len", [2, 3, 5])
def test_several_new_tokens_see_one_key_more_each(device: str, query_len: int) -> None:
    # The last key of 65 is the only one of its tile, and only the last token sees it.
    requests = decoding(65, 300, query_len, 128, 66, query_len=query_len)
    batch = PagedBatch.random(requests, device, heads=(6, 2))
    batch.check(run(batch, work_for(batch)))


def test_many_heads_of_one_kv_head(device: str) -> None:
    batch = PagedBatch.random(decoding(200, 70), device, heads=(48, 1), dtype=torch.float16)
    batch.check(run(batch, work_for(batch)))


@pytest.mark.parametrize("query_len", [1, 2])
@pytest.mark.parametrize("window", [1, 40, 64, 500])
def test_a_window_reads_nothing_before_it(device: str, window: int, query_len: int) -> None:
    requests = decoding(600, 64, 65, 30, 129, query_len=query_len)
    batch = PagedBatch.random(requests, device)
    batch.drop_blocks_before(window)
    batch.check(run(batch, work_for(batch, window=window)), window=window)


def test_layers_with_and_without_a_window_have_their_own_work(device: str) -> None:
    wide, narrow = (PagedBatch.random(decoding(300, 70), device) for _ in range(2))
    narrow.drop_blocks_before(50)
    wide_work, narrow_work = work_for(wide), work_for(narrow, window=50)
    out, narrow_out = run(wide, wide_work), run(narrow, narrow_work)
    wide.check(out)
    narrow.check(narrow_out, window=50)


def test_soft_cap(device: str) -> None:
    batch = PagedBatch.random(decoding(300, 20), device)
    batch.check(run(batch, work_for(batch), soft_cap=1.5), soft_cap=1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_a_cache_of_8_bits(device: str, dtype: torch.dtype) -> None:
    batch = PagedBatch.random(decoding(300, 20, 65), device, dtype=dtype, cache_dtype=FP8)
    batch.check(run(batch, work_for(batch), k_scale=0.5, v_scale=3.0), k_scale=0.5, v_scale=3.0)


def test_requests_share_blocks(device: str) -> None:
    batch = PagedBatch.random(decoding(100, 70, 300), device)
    batch.share_blocks(giver=0, taker=1, num_blocks=4)
    batch.share_blocks(giver=0, taker=2, num_blocks=6)
    batch.check(run(batch, work_for(batch)))


def test_rows_of_padding_become_zeros_wherever_they_are(device: str) -> None:
    batch = PagedBatch.random(decoding(0, 70, 0, 0, 300, 0, 5, 0), device)
    is_padding = batch.seq_lens == 0
    out = run(batch, work_for(batch))
    assert (out[is_padding] == 0).all()
    for kept in (batch.queries, batch.keys, batch.values):
        kept[:] = [one for one, unused in zip(kept, is_padding, strict=True) if not unused]
    batch.check(out[~is_padding])


def test_padding_alone(device: str) -> None:
    batch = PagedBatch.random(decoding(0, 0, 0), device)
    assert (run(batch, work_for(batch)) == 0).all()


def test_work_is_planned_anew_for_each_step(device: str) -> None:
    long = PagedBatch.random(decoding(500, 64, 200), device)
    work = work_for(long)
    long.check(run(long, work))
    short = PagedBatch.random(decoding(3, 70), device)
    short.check(run(short, work))


def test_queries_may_be_a_part_of_wider_rows(device: str) -> None:
    batch = PagedBatch.random(decoding(100, 7), device)
    queries = torch.cat(batch.queries)
    wide = torch.full((2, 7, 64), math.nan, device=device)
    wide[:, :4] = queries
    batch.queries[:] = [wide[:1, :4], wide[1:, :4]]
    work = work_for(batch)
    plan_decode_work(work, batch.seq_lens)
    tables = batch.block_tables.to(device)
    args = (batch.k_cache, batch.v_cache, tables, batch.seq_lens, batch.scale, work)
    batch.check(decode_attention(wide[:, :4], *args))


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_a_request_that_is_not_a_number_disturbs_no_other(device: str) -> None:
    batch = PagedBatch.random(decoding(300, 130), device)
    clean = run(batch, work_for(batch))
    batch.queries[0].fill_(math.nan)
    poisoned = run(batch, work_for(batch))
    assert poisoned[0].isnan().all()
    assert torch.equal(poisoned[1], clean[1])
