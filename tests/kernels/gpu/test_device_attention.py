"""The attention of whole steps: rows that decode in front, chunks behind, either alone."""

import math

import pytest
import torch

from octavo.kernels.device_attention import DeviceAttention, step_attention
from octavo.kernels.kv_blocks import KvBlocks
from octavo.kernels.paged_attention import paged_attention_reference
from octavo.kernels.paged_tokens import PagedTokens

BLOCK_SIZE, NUM_BLOCKS, KV_HEADS, HEADS, HEAD_DIM = 16, 24, 2, 6, 64
SCALE = HEAD_DIM**-0.5

# (sequence length, new tokens)
DECODES = [(70, 1), (1, 1), (33, 1)]
CHUNKS = [(40, 24), (5, 5), (18, 1)]


@pytest.mark.parametrize("num_told", [0, 1, 3])
@pytest.mark.parametrize(
    "requests", [DECODES, CHUNKS, DECODES + CHUNKS], ids=["decodes", "chunks", "both"]
)
def test_all_rows_attend_as_in_the_reference(
    requests: list[tuple[int, int]], num_told: int, device: str
) -> None:
    num_decodes = num_told if requests[0] in DECODES else 0
    keys, values = torch.randn(2, NUM_BLOCKS, BLOCK_SIZE, KV_HEADS, HEAD_DIM).half().to(device)
    free = torch.randperm(NUM_BLOCKS).int().tolist()
    tables = torch.full((len(requests), 8), 2**30, dtype=torch.int32)
    for table, (seq_len, _) in zip(tables, requests, strict=True):
        num_blocks = -(-seq_len // BLOCK_SIZE)
        table[:num_blocks] = torch.tensor([free.pop() for _ in range(num_blocks)])
    num_new = torch.tensor([0] + [new for _, new in requests])
    tokens = PagedTokens(
        positions=torch.empty(0),
        slot_mapping=torch.empty(0),
        block_tables=tables.to(device),
        seq_lens=torch.tensor([seq_len for seq_len, _ in requests], dtype=torch.int32).to(device),
        query_start_loc=num_new.cumsum(0).int().to(device),
        num_decodes=num_decodes,
    )
    blocks = KvBlocks(keys, values)
    attention = step_attention(blocks, HEADS, SCALE)
    assert isinstance(attention, DeviceAttention)
    q = torch.randn(int(num_new.sum()), HEADS, HEAD_DIM).half().to(device)
    attention.begin(tokens)
    for blocks in (KvBlocks(values, keys), KvBlocks(keys, values)):
        actual = torch.full_like(q, math.nan)
        attention.attend(q, blocks, actual)
    rows = (tokens.block_tables, tokens.seq_lens, tokens.query_start_loc)
    expected = paged_attention_reference(q, blocks, *rows, SCALE)
    torch.testing.assert_close(actual, expected, rtol=2e-3, atol=math.exp2(-9))
