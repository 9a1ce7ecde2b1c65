"""Sampling on the GPU: Gumbel-max over what min_p, top_k and top_p keep; nothing is sorted.

    find_floors          greedy rows' tokens; for others a floor that no token kept is below
    _draw_chunks_kernel  for each chunk of a row: the tokens from the floor up, listed; or the best
                         of its tokens in rows that neither top_k nor top_p cuts
    _draw_rows_kernel    for each row: the cut among those listed, and the token

Four launches whatever the rows ask for, and nothing that the host has to know. Logits are read
twice, by enough programs for the whole GPU even if there is one row.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization, powers_of_2
from .group_maxima import GROUP_SIZE, LEAST_PADDED, MOST_GROUPS, padded
from .gumbel_noise import gumbel_noise, gumbel_noise_of_block
from .heaviest import keep_heaviest, load_kept, mass, num_candidates, weights_from
from .sampling_floors import UNDECIDED, find_floors

# Tokens of a chunk, and candidates looked at together: 16 and 4 for each of 128 threads. Not yet
# measured.
_CHUNK_SIZE = 2048
_BLOCK_SIZE = 512
_NUM_WARPS = 4

# Of each row. With more candidates, which only flat distributions have, all logits are read again.
_LIST_SIZE = 8192


def sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> Tensor:
    """Choose a token for each row; arguments and result as in ../sampling.py."""
    num_rows, vocab_size = logits.shape
    if num_rows == 0:
        return torch.empty(0, dtype=torch.int64, device=logits.device)
    tokens, bounds, sums = find_floors(logits, temperature, top_k, top_p, min_p)
    num_chunks = triton.cdiv(vocab_size, _CHUNK_SIZE)
    listed = torch.empty(num_rows, _LIST_SIZE, dtype=torch.int32, device=logits.device)
    best_scores = torch.empty(num_rows, num_chunks, device=logits.device)
    best_ids = torch.empty(num_rows, num_chunks, dtype=torch.int32, device=logits.device)
    common = dict(
        logits_ptr=logits,
        temperature_ptr=temperature,
        top_k_ptr=top_k,
        top_p_ptr=top_p,
        seeds_ptr=seeds,
        positions_ptr=positions,
        tokens_ptr=tokens,
        bounds_ptr=bounds,
        sums_ptr=sums,
        listed_ptr=listed,
        best_scores_ptr=best_scores,
        best_ids_ptr=best_ids,
        vocab_size=vocab_size,
        num_chunks=num_chunks,
        LIST_SIZE=_LIST_SIZE,
        num_warps=_NUM_WARPS,
    )
    _draw_chunks_kernel[num_chunks, num_rows](**common, CHUNK=_CHUNK_SIZE)
    _draw_rows_kernel[num_rows,](**common, CHUNKS=padded(num_chunks), BLOCK=_BLOCK_SIZE)
    return tokens


def aot_specializations() -> Iterator[Specialization]:
    floats = ("logits_ptr", "temperature_ptr", "top_p_ptr", "bounds_ptr", "best_scores_ptr")
    signature = dict.fromkeys(floats, "*fp32")
    signature |= dict.fromkeys(("seeds_ptr", "positions_ptr", "tokens_ptr", "sums_ptr"), "*i64")
    signature |= dict.fromkeys(("top_k_ptr", "listed_ptr", "best_ids_ptr"), "*i32")
    signature |= {"vocab_size": "i32", "num_chunks": "i32"}
    chunks = {"LIST_SIZE": _LIST_SIZE, "CHUNK": _CHUNK_SIZE}
    yield Specialization(_draw_chunks_kernel, signature, chunks, _NUM_WARPS, num_stages=3)
    most_chunks = padded(MOST_GROUPS * GROUP_SIZE // _CHUNK_SIZE)
    for max_chunks in powers_of_2(LEAST_PADDED, most_chunks):
        rows = {"LIST_SIZE": _LIST_SIZE, "CHUNKS": max_chunks, "BLOCK": _BLOCK_SIZE}
        yield Specialization(_draw_rows_kernel, signature, rows, _NUM_WARPS, num_stages=3)


# The columns may be rows of one matrix, which begin anywhere: a number is read of each.
_COLUMNS = ["temperature_ptr", "top_k_ptr", "top_p_ptr"]


@triton.jit(do_not_specialize_on_alignment=_COLUMNS)
def _draw_chunks_kernel(
    logits_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    seeds_ptr,
    positions_ptr,
    tokens_ptr,
    bounds_ptr,
    sums_ptr,
    listed_ptr,
    best_scores_ptr,
    best_ids_ptr,
    vocab_size,
    num_chunks,
    LIST_SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    chunk = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    if tl.load(tokens_ptr + row) != UNDECIDED:
        return
    largest = tl.load(bounds_ptr + row * 3)
    log_min_p = tl.load(bounds_ptr + row * 3 + 1)
    ids = chunk * CHUNK + tl.arange(0, CHUNK)
    logits = tl.load(
        logits_ptr + row * vocab_size + ids, mask=ids < vocab_size, other=float("-inf")
    )
    values = tl.div_rn(logits - largest, tl.load(temperature_ptr + row))
    values = tl.where(values >= log_min_p, values, float("-inf"))
    if _is_cut(tl.load(top_k_ptr + row), tl.load(top_p_ptr + row), vocab_size):
        floor = tl.load(bounds_ptr + row * 3 + 2)
        is_listed = (values >= floor) & (values > float("-inf"))
        # The list's order is that in which the chunks arrive; nothing depends on it.
        tl.atomic_add(sums_ptr + row * 2, tl.sum(mass(values), axis=0), sem="relaxed")
        num_listed = tl.sum(is_listed.to(tl.int32), axis=0)
        start = tl.atomic_add(sums_ptr + row * 2 + 1, num_listed.to(tl.int64), sem="relaxed")
        places = start + tl.cumsum(is_listed.to(tl.int32), axis=0) - 1
        tl.store(listed_ptr + row * LIST_SIZE + places, ids, mask=is_listed & (places < LIST_SIZE))
    else:
        seed, position = tl.load(seeds_ptr + row), tl.load(positions_ptr + row)
        scores = values + gumbel_noise_of_block(seed, position, chunk * CHUNK, CHUNK)
        best = tl.max(scores, axis=0)
        tl.store(best_scores_ptr + row * num_chunks + chunk, best)
        best_id = tl.min(tl.where(scores == best, ids, vocab_size), axis=0)
        tl.store(best_ids_ptr + row * num_chunks + chunk, best_id)


@triton.jit(do_not_specialize_on_alignment=_COLUMNS)
def _draw_rows_kernel(
    logits_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    seeds_ptr,
    positions_ptr,
    tokens_ptr,
    bounds_ptr,
    sums_ptr,
    listed_ptr,
    best_scores_ptr,
    best_ids_ptr,
    vocab_size,
    num_chunks,
    LIST_SIZE: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if tl.load(tokens_ptr + row) != UNDECIDED:
        return
    top_k, top_p = tl.load(top_k_ptr + row), tl.load(top_p_ptr + row)
    if _is_cut(top_k, top_p, vocab_size):
        largest = tl.load(bounds_ptr + row * 3)
        floor = tl.load(bounds_ptr + row * 3 + 2)
        num_listed = tl.load(sums_ptr + row * 2 + 1)
        num_listed = tl.where(num_listed <= LIST_SIZE, num_listed, -1).to(tl.int32)
        candidates = (
            logits_ptr + row * vocab_size,
            vocab_size,
            largest,
            tl.load(temperature_ptr + row),
            floor,
            listed_ptr + row * LIST_SIZE,
            num_listed,
        )
        threshold, last = _cut(candidates, top_k, top_p, tl.load(sums_ptr + row * 2), BLOCK)
        seed, position = tl.load(seeds_ptr + row), tl.load(positions_ptr + row)
        token = _best_of(candidates, (threshold, last), seed, position, BLOCK)
    else:
        chunks = tl.arange(0, CHUNKS)
        is_inside = chunks < num_chunks
        chunks += row * num_chunks
        scores = tl.load(best_scores_ptr + chunks, mask=is_inside, other=float("-inf"))
        ids = tl.load(best_ids_ptr + chunks, mask=is_inside, other=vocab_size)
        token = tl.min(tl.where(scores == tl.max(scores, axis=0), ids, vocab_size), axis=0)
    tl.store(tokens_ptr + row, token.to(tl.int64))


@triton.jit
def _is_cut(top_k, top_p, vocab_size):
    return ((top_k > 0) & (top_k < vocab_size)) | (top_p < 1)


@triton.jit
def _cut(candidates, top_k, top_p, total, BLOCK: tl.constexpr):
    """What top_k keeps of a row, and top_p of that; `total` is the mass of all its tokens."""
    vocab_size = candidates[1]
    threshold, last = tl.full((), float("-inf"), tl.float32), vocab_size
    if (top_k > 0) & (top_k < vocab_size):
        threshold, last = keep_heaviest(
            candidates, (threshold, last), top_k.to(tl.int64), True, BLOCK
        )
        everything = tl.full((1,), float("-inf"), tl.float32)
        masses = weights_from(candidates, (threshold, last), everything, False, BLOCK)
        total = tl.sum(masses, axis=0)
    if top_p < 1:
        share = top_p.to(tl.float64) * total.to(tl.float64)
        target = share.to(tl.int64)
        target = tl.maximum(target + (target.to(tl.float64) < share).to(tl.int64), 1)
        threshold, last = keep_heaviest(candidates, (threshold, last), target, False, BLOCK)
    return threshold, last


@triton.jit
def _best_of(candidates, kept, seed, position, BLOCK: tl.constexpr):
    """The token with the largest sum of value and noise, of those kept."""
    best = tl.full((), float("-inf"), tl.float32)
    token = candidates[1]
    for start in range(0, num_candidates(candidates), BLOCK):
        ids, values = load_kept(candidates, kept, start, BLOCK)
        scores = values + gumbel_noise(seed, position, ids)
        largest = tl.max(scores, axis=0)
        first = tl.min(tl.where(scores == largest, ids, candidates[1]), axis=0)
        is_better = (largest > best) | ((largest == best) & (first < token))
        token = tl.where(is_better, first, token)
        best = tl.where(is_better, largest, best)
    return token
