"""Penalties on the GPU: counts of the known tokens, then lists of tokens, then all tokens."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.penalties import KnownTokens, Penalties

from .aot import Specialization

# Tokens that a program counts, and logits that one changes: 16 for each of 128 threads. Not yet
# measured.
_BLOCK = 2048
_NUM_WARPS = 4

# Of a token's count, set if the prompt has it; below it is how often the output has it.
_IN_PROMPT = tl.constexpr(1 << 30)


def apply_penalties(
    logits: Tensor, places: Tensor, rows: Tensor, penalties: Penalties, known: KnownTokens
) -> None:
    """See ../penalties.py."""
    num_penalized, vocab_size = len(rows), logits.shape[1]
    if num_penalized == 0:
        return
    columns = {
        "repetition_ptr": penalties.repetition_penalty,
        "frequency_ptr": penalties.frequency_penalty,
        "presence_ptr": penalties.presence_penalty,
    }
    known_tokens: dict[str, Tensor | int] = {
        "token_ids_ptr": known.token_ids,
        "num_prompt_tokens_ptr": known.num_prompt_tokens,
        "num_tokens_ptr": known.num_tokens,
        "max_tokens": known.token_ids.shape[1],
    }
    counts = torch.zeros(num_penalized, vocab_size, dtype=torch.int32, device=logits.device)
    _count_kernel[triton.cdiv(known.token_ids.shape[1], _BLOCK), num_penalized](
        rows_ptr=rows,
        counts_ptr=counts,
        vocab_size=vocab_size,
        **columns,
        **known_tokens,
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )
    _change_listed(logits, places, rows, penalties, known_tokens)
    _change_all_kernel[triton.cdiv(vocab_size, _BLOCK), num_penalized](
        logits_ptr=logits,
        places_ptr=places,
        rows_ptr=rows,
        allowed_ptr=penalties.allowed,
        counts_ptr=counts,
        vocab_size=vocab_size,
        num_words=penalties.allowed.shape[1],
        **columns,
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )


def _change_listed(
    logits: Tensor,
    places: Tensor,
    rows: Tensor,
    penalties: Penalties,
    known_tokens: dict[str, Tensor | int],
) -> None:
    _, max_words, max_length = penalties.bad_words.shape
    max_stops, max_biases = penalties.stop_token_ids.shape[1], penalties.bias_token_ids.shape[1]
    _change_listed_kernel[len(rows),](
        logits_ptr=logits,
        places_ptr=places,
        rows_ptr=rows,
        bad_words_ptr=penalties.bad_words,
        min_tokens_ptr=penalties.min_tokens,
        stop_token_ids_ptr=penalties.stop_token_ids,
        bias_token_ids_ptr=penalties.bias_token_ids,
        bias_values_ptr=penalties.bias_values,
        vocab_size=logits.shape[1],
        max_words=max_words,
        max_length=max_length,
        max_stops=max_stops,
        max_biases=max_biases,
        **known_tokens,
        WORDS=_padded(max_words),
        LENGTH=_padded(max_length),
        STOPS=_padded(max_stops),
        BIASES=_padded(max_biases),
        num_warps=_NUM_WARPS,
    )


def _padded(count: int) -> int:
    return max(16, 1 << (count - 1).bit_length()) if count else 16


def aot_specializations() -> Iterator[Specialization]:
    floats = dict.fromkeys(("repetition_ptr", "frequency_ptr", "presence_ptr"), "*fp32")
    indices = dict.fromkeys(("rows_ptr", "places_ptr"), "*i32") | {"logits_ptr": "*fp32"}
    known = dict.fromkeys(("token_ids_ptr", "num_prompt_tokens_ptr", "num_tokens_ptr"), "*i32")
    known |= {"max_tokens": "i32", "vocab_size": "i32"}
    counts = floats | known | {"rows_ptr": "*i32", "counts_ptr": "*i32"}
    block = {"BLOCK": _BLOCK}
    yield Specialization(_count_kernel, counts, block, _NUM_WARPS, num_stages=3)
    every = floats | indices | {"allowed_ptr": "*i32", "counts_ptr": "*i32"}
    every |= {"vocab_size": "i32", "num_words": "i32"}
    yield Specialization(_change_all_kernel, every, block, _NUM_WARPS, num_stages=3)
    lists = ("bad_words_ptr", "min_tokens_ptr", "stop_token_ids_ptr", "bias_token_ids_ptr")
    listed = known | indices | dict.fromkeys(lists, "*i32") | {"bias_values_ptr": "*fp32"}
    listed |= dict.fromkeys(("max_words", "max_length", "max_stops", "max_biases"), "i32")
    for most in (16, 512):
        constants = {"WORDS": 16, "LENGTH": 16, "STOPS": 16, "BIASES": most}
        yield Specialization(_change_listed_kernel, listed, constants, _NUM_WARPS, num_stages=3)


# Nothing of a step is compiled in: neither where its rows are listed, nor the longest lists so far.
@triton.jit(do_not_specialize_on_alignment=["rows_ptr"])
def _count_kernel(
    rows_ptr,
    counts_ptr,
    repetition_ptr,
    frequency_ptr,
    presence_ptr,
    token_ids_ptr,
    num_prompt_tokens_ptr,
    num_tokens_ptr,
    max_tokens,
    vocab_size,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(1).to(tl.int64)
    row = tl.load(rows_ptr + index).to(tl.int64)
    num_tokens = tl.load(num_tokens_ptr + row)
    positions = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if _is_counted(row, repetition_ptr, frequency_ptr, presence_ptr):
        is_known = positions < num_tokens
        token_ids = tl.load(token_ids_ptr + row * max_tokens + positions, mask=is_known, other=0)
        is_prompt = positions < tl.load(num_prompt_tokens_ptr + row)
        count_ptrs = counts_ptr + index * vocab_size + token_ids
        tl.atomic_or(count_ptrs, _IN_PROMPT, mask=is_known & is_prompt, sem="relaxed")
        tl.atomic_add(count_ptrs, 1, mask=is_known & ~is_prompt, sem="relaxed")


@triton.jit(
    do_not_specialize=["max_words", "max_length", "max_stops", "max_biases"],
    do_not_specialize_on_alignment=["rows_ptr", "places_ptr"],
)
def _change_listed_kernel(
    logits_ptr,
    places_ptr,
    rows_ptr,
    bad_words_ptr,
    min_tokens_ptr,
    stop_token_ids_ptr,
    bias_token_ids_ptr,
    bias_values_ptr,
    token_ids_ptr,
    num_prompt_tokens_ptr,
    num_tokens_ptr,
    max_tokens,
    vocab_size,
    max_words,
    max_length,
    max_stops,
    max_biases,
    WORDS: tl.constexpr,
    LENGTH: tl.constexpr,
    STOPS: tl.constexpr,
    BIASES: tl.constexpr,
):
    index = tl.program_id(0)
    row = tl.load(rows_ptr + index).to(tl.int64)
    logits_ptr += tl.load(places_ptr + index).to(tl.int64) * vocab_size
    num_tokens, num_prompt_tokens = (
        tl.load(num_tokens_ptr + row),
        tl.load(num_prompt_tokens_ptr + row),
    )

    # Before what is banned, not after it: minus infinity stays that, whatever is added.
    biases = tl.arange(0, BIASES)
    is_inside = biases < max_biases
    token_ids = tl.load(bias_token_ids_ptr + row * max_biases + biases, mask=is_inside, other=-1)
    values = tl.load(bias_values_ptr + row * max_biases + biases, mask=is_inside, other=0.0)
    logits = tl.load(logits_ptr + token_ids, mask=token_ids >= 0, other=0.0)
    tl.store(logits_ptr + token_ids, logits + values, mask=token_ids >= 0)
    tl.debug_barrier()

    stops = tl.arange(0, STOPS)
    is_early = num_tokens - num_prompt_tokens < tl.load(min_tokens_ptr + row)
    is_stop = (stops < max_stops) & is_early
    stops = tl.load(stop_token_ids_ptr + row * max_stops + stops, mask=is_stop, other=-1)
    _ban(logits_ptr, stops)

    words = tl.arange(0, WORDS)[:, None]
    # The end of each word is at the end of its places.
    places = tl.arange(0, LENGTH)[None, :] - (LENGTH - max_length)
    is_inside = (words < max_words) & (places >= 0)  # [WORDS, LENGTH]
    bad_words_ptr += row * max_words * max_length
    expected = tl.load(bad_words_ptr + words * max_length + places, mask=is_inside, other=-1)
    is_last = places == max_length - 1
    positions = num_tokens - max_length + 1 + places
    is_output = (positions >= num_prompt_tokens) & (positions < num_tokens)
    known = tl.load(token_ids_ptr + row * max_tokens + positions, mask=is_output, other=-1)
    agrees = (known == expected) | (expected < 0) | is_last
    follows = tl.min(agrees.to(tl.int32), axis=1) > 0
    last = tl.max(tl.where(is_last, expected, -1), axis=1)
    _ban(logits_ptr, tl.where(follows, last, -1))


@triton.jit(do_not_specialize_on_alignment=["rows_ptr", "places_ptr"])
def _change_all_kernel(
    logits_ptr,
    places_ptr,
    rows_ptr,
    allowed_ptr,
    counts_ptr,
    repetition_ptr,
    frequency_ptr,
    presence_ptr,
    vocab_size,
    num_words,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(1).to(tl.int64)
    row = tl.load(rows_ptr + index).to(tl.int64)
    token_ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_inside = token_ids < vocab_size
    logits_ptr += tl.load(places_ptr + index).to(tl.int64) * vocab_size
    logits = tl.load(logits_ptr + token_ids, mask=is_inside, other=0.0)
    words = tl.load(allowed_ptr + row * num_words + token_ids // 32, mask=is_inside, other=0)
    is_allowed = ((words >> (token_ids % 32)) & 1) != 0
    logits = tl.where(is_allowed, logits, _banned(logits))
    if _is_counted(row, repetition_ptr, frequency_ptr, presence_ptr):
        counts = tl.load(counts_ptr + index * vocab_size + token_ids, mask=is_inside, other=0)
        penalty = tl.load(repetition_ptr + row)
        repeated = tl.where(logits > 0, tl.div_rn(logits, penalty), logits * penalty)
        logits = tl.where(counts > 0, repeated, logits)
        num_times = (counts & (_IN_PROMPT - 1)).to(tl.float32)
        logits -= tl.load(frequency_ptr + row) * num_times
        logits -= tl.load(presence_ptr + row) * (num_times > 0).to(tl.float32)
    tl.store(logits_ptr + token_ids, logits, mask=is_inside)


@triton.jit
def _is_counted(row, repetition_ptr, frequency_ptr, presence_ptr):
    is_changed = tl.load(repetition_ptr + row) != 1
    return is_changed | (tl.load(frequency_ptr + row) != 0) | (tl.load(presence_ptr + row) != 0)


@triton.jit
def _ban(logits_ptr, token_ids):
    logits = tl.load(logits_ptr + token_ids, mask=token_ids >= 0, other=0.0)
    tl.store(logits_ptr + token_ids, _banned(logits), mask=token_ids >= 0)


@triton.jit
def _banned(logits):
    """Minus infinity, but what is NaN or plus infinity stays so."""
    return tl.where(logits < float("inf"), float("-inf"), logits)
