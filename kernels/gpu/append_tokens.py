"""Append tokens on a GPU: a program for each row of the step, see kernels/append_tokens.py."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization

# Only a forked row has more than one number to move. Not yet measured.
_BLOCK = 512
_NUM_WARPS = 1


def append_tokens(
    rows: Tensor,
    seq_lens: Tensor,
    sampled_rows: Tensor,
    source_rows: Tensor,
    positions: Tensor,
    sampled: Tensor,
    token_ids: Tensor,
    num_tokens: Tensor,
    num_computed_tokens: Tensor,
) -> None:
    for each in (rows, seq_lens, sampled_rows, source_rows, num_tokens, num_computed_tokens):
        assert each.dtype == torch.int32 and each.stride() == (1,), each.dtype
    assert positions.dtype == sampled.dtype == torch.int64, sampled.dtype
    assert token_ids.dtype == torch.int32 and token_ids.stride(1) == 1, token_ids.dtype
    assert len(rows) == len(seq_lens), rows.shape
    assert len(sampled_rows) == len(source_rows) == len(positions) == len(sampled), sampled.shape
    if not (num_programs := max(len(rows), len(sampled_rows))):
        return
    _append_tokens_kernel[(num_programs,)](
        rows_ptr=rows,
        seq_lens_ptr=seq_lens,
        sampled_rows_ptr=sampled_rows,
        source_rows_ptr=source_rows,
        positions_ptr=positions,
        sampled_ptr=sampled,
        token_ids_ptr=token_ids,
        num_tokens_ptr=num_tokens,
        num_computed_tokens_ptr=num_computed_tokens,
        num_requests=len(rows),
        num_sampled=len(sampled_rows),
        token_ids_stride=token_ids.stride(0),
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )


@triton.jit(do_not_specialize=("num_requests", "num_sampled"))
def _append_tokens_kernel(
    rows_ptr,
    seq_lens_ptr,
    sampled_rows_ptr,
    source_rows_ptr,
    positions_ptr,
    sampled_ptr,
    token_ids_ptr,
    num_tokens_ptr,
    num_computed_tokens_ptr,
    num_requests,
    num_sampled,
    token_ids_stride,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0)
    is_request = i < num_requests
    computed_row = tl.load(rows_ptr + i, mask=is_request, other=-1)
    seq_len = tl.load(seq_lens_ptr + i, mask=is_request, other=0)
    tl.store(num_computed_tokens_ptr + computed_row, seq_len, mask=computed_row >= 0)

    is_sampled = i < num_sampled
    row = tl.load(sampled_rows_ptr + i, mask=is_sampled, other=0).to(tl.int64)
    source = tl.load(source_rows_ptr + i, mask=is_sampled, other=0).to(tl.int64)
    # A number of tokens, that int32 holds; another program may write behind it meanwhile.
    position = tl.load(positions_ptr + i, mask=is_sampled, other=0).to(tl.int32)
    to_ptr = token_ids_ptr + row * token_ids_stride
    num_copied = tl.where(source == row, 0, position)
    for start in range(0, num_copied, BLOCK):
        offsets = start + tl.arange(0, BLOCK)  # [BLOCK]
        is_known = offsets < num_copied
        copied = tl.load(token_ids_ptr + source * token_ids_stride + offsets, mask=is_known)
        tl.store(to_ptr + offsets, copied, mask=is_known)
    token_id = tl.load(sampled_ptr + i, mask=is_sampled, other=0)
    tl.store(to_ptr + position, tl.maximum(token_id, 0).to(tl.int32), mask=is_sampled)
    tl.store(num_tokens_ptr + row, position + 1, mask=is_sampled)
    tl.store(num_computed_tokens_ptr + row, position, mask=is_sampled)


def aot_specializations() -> Iterator[Specialization]:
    names = ("rows", "seq_lens", "sampled_rows", "source_rows", "num_tokens", "num_computed_tokens")
    signature = {f"{name}_ptr": "*i32" for name in (*names, "token_ids")}
    signature |= {"positions_ptr": "*i64", "sampled_ptr": "*i64"}
    signature |= dict.fromkeys(("num_requests", "num_sampled", "token_ids_stride"), "i32")
    yield Specialization(_append_tokens_kernel, signature, {"BLOCK": _BLOCK}, _NUM_WARPS, 1)
