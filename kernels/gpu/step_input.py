"""Step input on a GPU: a program for each request, see kernels/step_input.py."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.paged_tokens import PagedTokens

from .aot import Specialization

# A step that decodes has one token a request, and table entries by the hundred. Not yet measured.
_BLOCK = 512
_NUM_WARPS = 4


def step_input(
    rows: Tensor,
    token_ids: Tensor,
    num_computed_tokens: Tensor,
    tables: Tensor,
    block_size: int,
    input_ids: Tensor,
    tokens: PagedTokens,
) -> None:
    for each in (rows, token_ids, num_computed_tokens, tables, input_ids, tokens.block_tables):
        assert each.dtype == torch.int32 and each.stride(-1) == 1, each.dtype
    assert tokens.positions.dtype == tokens.slot_mapping.dtype == torch.int64
    assert tokens.seq_lens.dtype == tokens.query_start_loc.dtype == torch.int32
    assert tokens.block_tables.shape[1] >= tables.shape[1], tokens.block_tables.shape
    if not len(rows):
        return
    _step_input_kernel[(len(rows),)](
        rows_ptr=rows,
        query_start_loc_ptr=tokens.query_start_loc,
        token_ids_ptr=token_ids,
        num_computed_tokens_ptr=num_computed_tokens,
        tables_ptr=tables,
        input_ids_ptr=input_ids,
        positions_ptr=tokens.positions,
        slot_mapping_ptr=tokens.slot_mapping,
        seq_lens_ptr=tokens.seq_lens,
        block_tables_ptr=tokens.block_tables,
        token_ids_stride=token_ids.stride(0),
        tables_stride=tables.stride(0),
        block_tables_stride=tokens.block_tables.stride(0),
        BLOCK_SIZE=block_size,
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )


@triton.jit
def _step_input_kernel(
    rows_ptr,
    query_start_loc_ptr,
    token_ids_ptr,
    num_computed_tokens_ptr,
    tables_ptr,
    input_ids_ptr,
    positions_ptr,
    slot_mapping_ptr,
    seq_lens_ptr,
    block_tables_ptr,
    token_ids_stride,
    tables_stride,
    block_tables_stride,
    BLOCK_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    request = tl.program_id(0)
    row = tl.load(rows_ptr + request).to(tl.int64)
    is_row = row >= 0
    first = tl.load(query_start_loc_ptr + request)
    num_new = tl.load(query_start_loc_ptr + request + 1) - first
    num_computed = tl.load(num_computed_tokens_ptr + row, mask=is_row, other=0)
    seq_len = tl.where(is_row, num_computed + num_new, 0)
    tl.store(seq_lens_ptr + request, seq_len)
    token_ids_ptr += row * token_ids_stride
    tables_ptr += row * tables_stride
    for start in range(0, num_new, BLOCK):
        offsets = start + tl.arange(0, BLOCK)  # [BLOCK]
        is_new = offsets < num_new
        position = tl.where(is_row, num_computed + offsets, 0)
        is_known = is_new & is_row
        token_id = tl.load(token_ids_ptr + position, mask=is_known, other=0)
        block = tl.load(tables_ptr + position // BLOCK_SIZE, mask=is_known, other=0).to(tl.int64)
        slot = tl.where(is_row, block * BLOCK_SIZE + position % BLOCK_SIZE, -1)
        tl.store(input_ids_ptr + first + offsets, token_id, mask=is_new)
        tl.store(positions_ptr + first + offsets, position.to(tl.int64), mask=is_new)
        tl.store(slot_mapping_ptr + first + offsets, slot, mask=is_new)
    block_tables_ptr += request.to(tl.int64) * block_tables_stride
    num_blocks = tl.cdiv(seq_len, BLOCK_SIZE)
    for start in range(0, num_blocks, BLOCK):
        offsets = start + tl.arange(0, BLOCK)  # [BLOCK]
        is_held = offsets < num_blocks
        blocks = tl.load(tables_ptr + offsets, mask=is_held)
        tl.store(block_tables_ptr + offsets, blocks, mask=is_held)


def aot_specializations() -> Iterator[Specialization]:
    names = ("rows", "query_start_loc", "token_ids", "num_computed_tokens", "tables")
    outputs = ("input_ids", "seq_lens", "block_tables")
    signature = {f"{name}_ptr": "*i32" for name in (*names, *outputs)}
    signature |= {"positions_ptr": "*i64", "slot_mapping_ptr": "*i64"}
    strides = ("token_ids_stride", "tables_stride", "block_tables_stride")
    signature |= dict.fromkeys(strides, "i32")
    for block_size in (16, 32, 64):
        constexprs = {"BLOCK_SIZE": block_size, "BLOCK": _BLOCK}
        yield Specialization(_step_input_kernel, signature, constexprs, _NUM_WARPS, 1)
