"""Log-probabilities on the GPU: one pass over the logits, then one program for each row.

    _chunks_kernel  for each chunk of a row: its largest logit, the sum of exp(logit - largest), how
                    many tokens are before the chosen one, and the largest of each group of tokens
    _rows_kernel    for each row: the sums of these; and the most probable tokens, one after another
                    out of the group whose largest is next

Partial sums are added in one order whatever the batch, so a row's numbers depend on it alone.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.logprobs import Logprobs

from .aot import Specialization, powers_of_2
from .group_maxima import GROUP_SIZE, LEAST_PADDED, MOST_GROUPS, padded

# As group_maxima.py: 2,048 logits for a program. Not yet measured.
_GROUPS_OF_CHUNK = 16
_NUM_WARPS = 4


def logprobs(logits: Tensor, token_ids: Tensor, num_top: int) -> Logprobs:
    """See ../logprobs.py."""
    num_rows, vocab_size = logits.shape
    num_groups = triton.cdiv(vocab_size, GROUP_SIZE)
    num_chunks = triton.cdiv(num_groups, _GROUPS_OF_CHUNK)
    device = logits.device
    result = Logprobs(
        torch.empty(num_rows, device=device),
        torch.empty(num_rows, dtype=torch.int32, device=device),
        torch.empty(num_rows, num_top, device=device),
        torch.empty(num_rows, num_top, dtype=torch.int32, device=device),
    )
    if num_rows == 0:
        return result
    common = {
        "logits_ptr": logits,
        "token_ids_ptr": token_ids,
        "maxima_ptr": torch.empty(num_rows, num_groups, device=device),
        "largest_ptr": torch.empty(num_rows, num_chunks, device=device),
        "sums_ptr": torch.empty(num_rows, num_chunks, device=device),
        "num_before_ptr": torch.empty(num_rows, num_chunks, dtype=torch.int32, device=device),
        "vocab_size": vocab_size,
        "num_groups": num_groups,
        "num_chunks": num_chunks,
        "GROUP": GROUP_SIZE,
        "num_warps": _NUM_WARPS,
    }
    _chunks_kernel[num_chunks, num_rows](**common, GROUPS=_GROUPS_OF_CHUNK)
    _rows_kernel[num_rows,](
        **common,
        chosen_ptr=result.chosen,
        ranks_ptr=result.ranks,
        top_ptr=result.top,
        top_ids_ptr=result.top_ids,
        num_top=num_top,
        GROUPS=padded(num_groups),
        CHUNKS=padded(num_chunks),
    )
    return result


def aot_specializations() -> Iterator[Specialization]:
    floats = ("logits_ptr", "maxima_ptr", "largest_ptr", "sums_ptr")
    common = dict.fromkeys(floats, "*fp32") | {"token_ids_ptr": "*i64", "num_before_ptr": "*i32"}
    common |= dict.fromkeys(("vocab_size", "num_groups", "num_chunks"), "i32")
    chunks = {"GROUP": GROUP_SIZE, "GROUPS": _GROUPS_OF_CHUNK}
    yield Specialization(_chunks_kernel, common, chunks, _NUM_WARPS, num_stages=3)
    results = {"chosen_ptr": "*fp32", "ranks_ptr": "*i32", "top_ptr": "*fp32"}
    signature = common | results | {"top_ids_ptr": "*i32", "num_top": "i32"}
    for groups in powers_of_2(LEAST_PADDED, MOST_GROUPS):
        max_chunks = padded(groups // _GROUPS_OF_CHUNK)
        rows = {"GROUP": GROUP_SIZE, "GROUPS": groups, "CHUNKS": max_chunks}
        yield Specialization(_rows_kernel, signature, rows, _NUM_WARPS, num_stages=3)


@triton.jit
def _chunks_kernel(
    logits_ptr,
    token_ids_ptr,
    maxima_ptr,
    largest_ptr,
    sums_ptr,
    num_before_ptr,
    vocab_size,
    num_groups,
    num_chunks,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
):
    chunk = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    logits_ptr += row * vocab_size
    groups = chunk * GROUPS + tl.arange(0, GROUPS)
    ids = groups[:, None] * GROUP + tl.arange(0, GROUP)[None, :]  # [GROUPS, GROUP]
    logits = tl.load(logits_ptr + ids, mask=ids < vocab_size, other=float("-inf"))
    maxima = tl.max(logits, axis=1)
    tl.store(maxima_ptr + row * num_groups + groups, maxima, mask=groups < num_groups)

    largest = tl.max(maxima, axis=0)
    # In a chunk of nothing but minus infinity, whose differences would be NaN, the sum is 0.
    shift = tl.where(largest == float("-inf"), 0.0, largest)
    total = tl.sum(tl.sum(tl.exp(logits - shift), axis=1), axis=0)
    tl.store(largest_ptr + row * num_chunks + chunk, largest)
    tl.store(sums_ptr + row * num_chunks + chunk, total)

    token = tl.maximum(tl.load(token_ids_ptr + row), 0).to(tl.int32)
    chosen = tl.load(logits_ptr + token)
    is_before = (logits > chosen) | ((logits == chosen) & (ids < token))
    num_before = tl.sum(tl.sum(is_before.to(tl.int32), axis=1), axis=0)
    tl.store(num_before_ptr + row * num_chunks + chunk, num_before)


@triton.jit(do_not_specialize=["num_top"])
def _rows_kernel(
    logits_ptr,
    token_ids_ptr,
    maxima_ptr,
    largest_ptr,
    sums_ptr,
    num_before_ptr,
    chosen_ptr,
    ranks_ptr,
    top_ptr,
    top_ids_ptr,
    vocab_size,
    num_groups,
    num_chunks,
    num_top,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * vocab_size
    chunks = tl.arange(0, CHUNKS)
    is_inside = chunks < num_chunks
    chunks += row * num_chunks
    maxima = tl.load(largest_ptr + chunks, mask=is_inside, other=float("-inf"))
    sums = tl.load(sums_ptr + chunks, mask=is_inside, other=0.0)
    largest = tl.max(maxima, axis=0)
    log_sum = largest + tl.log(tl.sum(sums * tl.exp(maxima - largest), axis=0))
    token = tl.maximum(tl.load(token_ids_ptr + row), 0)
    tl.store(chosen_ptr + row, tl.load(logits_ptr + token) - log_sum)
    num_before = tl.load(num_before_ptr + chunks, mask=is_inside, other=0)
    tl.store(ranks_ptr + row, 1 + tl.sum(num_before, axis=0))

    groups = tl.arange(0, GROUPS)
    # Of each group, the largest logit not taken yet, and whether there is one.
    left = tl.load(maxima_ptr + row * num_groups + groups, mask=groups < num_groups, other=0.0)
    has_left = (groups < num_groups).to(tl.int32)
    last, last_id = tl.full((), float("inf"), tl.float32), tl.full((), -1, tl.int32)
    for rank in range(num_top):
        largest = tl.max(tl.where(has_left > 0, left, float("-inf")), axis=0)
        is_next = (left == largest) & (has_left > 0)
        group = tl.min(tl.where(is_next, groups, num_groups - 1), axis=0)
        ids = group * GROUP + tl.arange(0, GROUP)
        logits = tl.load(logits_ptr + ids, mask=ids < vocab_size, other=float("-inf"))
        # What is taken is all that comes before, or is, the token that was taken last.
        is_left = (logits < last) | ((logits == last) & (ids > last_id))
        is_left = is_left & (ids < vocab_size)
        is_next = is_left & (logits == largest)
        last, last_id = largest, tl.min(tl.where(is_next, ids, vocab_size - 1), axis=0)
        tl.store(top_ptr + row * num_top + rank, last - log_sum)
        tl.store(top_ids_ptr + row * num_top + rank, last_id)
        is_left = is_left & ~(is_next & (ids == last_id))
        new_largest = tl.max(tl.where(is_left, logits, float("-inf")), axis=0)
        left = tl.where(groups == group, new_largest, left)
        has_left = tl.where(groups == group, tl.max(is_left.to(tl.int32), axis=0), has_left)
