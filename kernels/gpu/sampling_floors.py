"""Before sampling: greedy rows get their tokens, others a floor that no token kept is below.

Both come from the maxima of the rows' groups alone, a thousand numbers in place of all logits.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization, powers_of_2
from .bisection import ABOVE_ALL, BELOW_ALL, as_float, narrowed, pivots_between
from .group_maxima import GROUP_SIZE, LEAST_PADDED, MOST_GROUPS, group_maxima, padded

# Of a row in `tokens` until it has one.
UNDECIDED = tl.constexpr(-2)

# Not yet measured.
_NUM_WARPS = 4


def find_floors(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, bounds and sums; arguments as sampling.sample's.

    Returns:
        tokens: int64 [num_rows], -1 for rows without a largest number, UNDECIDED for those that
            are not greedy.
        bounds: float32 [num_rows, 3] for these: the largest logit, the logarithm of min_p, and the
            least (logit - largest) / temperature that top_k, top_p and min_p could keep.
        sums: int64 [num_rows, 2] for these: zeros.
    """
    num_rows, vocab_size = logits.shape
    maxima = group_maxima(logits)
    tokens = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    bounds = torch.empty(num_rows, 3, device=logits.device)
    sums = torch.empty(num_rows, 2, dtype=torch.int64, device=logits.device)
    _floors_kernel[num_rows,](
        logits_ptr=logits,
        maxima_ptr=maxima,
        temperature_ptr=temperature,
        top_k_ptr=top_k,
        top_p_ptr=top_p,
        min_p_ptr=min_p,
        tokens_ptr=tokens,
        bounds_ptr=bounds,
        sums_ptr=sums,
        vocab_size=vocab_size,
        num_groups=maxima.shape[1],
        GROUP=GROUP_SIZE,
        GROUPS=padded(maxima.shape[1]),
        num_warps=_NUM_WARPS,
    )
    return tokens, bounds, sums


def aot_specializations() -> Iterator[Specialization]:
    columns = ("temperature_ptr", "top_p_ptr", "min_p_ptr", "bounds_ptr")
    signature = dict.fromkeys(("logits_ptr", "maxima_ptr", *columns), "*fp32")
    signature |= {"top_k_ptr": "*i32", "tokens_ptr": "*i64", "sums_ptr": "*i64"}
    signature |= {"vocab_size": "i32", "num_groups": "i32"}
    for groups in powers_of_2(LEAST_PADDED, MOST_GROUPS):
        constants = {"GROUP": GROUP_SIZE, "GROUPS": groups}
        yield Specialization(_floors_kernel, signature, constants, _NUM_WARPS, num_stages=3)


# The columns may be rows of one matrix, which begin anywhere: a number is read of each.
@triton.jit(
    do_not_specialize_on_alignment=["temperature_ptr", "top_k_ptr", "top_p_ptr", "min_p_ptr"]
)
def _floors_kernel(
    logits_ptr,
    maxima_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    tokens_ptr,
    bounds_ptr,
    sums_ptr,
    vocab_size,
    num_groups,
    GROUP: tl.constexpr,
    GROUPS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    groups = tl.arange(0, GROUPS)
    maxima = tl.load(
        maxima_ptr + row * num_groups + groups, mask=groups < num_groups, other=float("-inf")
    )
    largest = tl.max(maxima, axis=0)
    temperature = tl.load(temperature_ptr + row)
    token = tl.full((), UNDECIDED, tl.int64)
    if (largest == float("inf")) | (largest == float("-inf")):
        token = tl.full((), -1, tl.int64)
    elif temperature == 0:
        group = tl.min(tl.where(maxima == largest, groups, GROUPS), axis=0)
        ids = group * GROUP + tl.arange(0, GROUP)
        logits = tl.load(
            logits_ptr + row * vocab_size + ids, mask=ids < vocab_size, other=float("-inf")
        )
        token = tl.min(tl.where(logits == largest, ids, vocab_size), axis=0).to(tl.int64)
    else:
        values = tl.div_rn(maxima - largest, temperature)
        log_min_p = _log_or_minus_infinity(tl.load(min_p_ptr + row))
        top_k = tl.load(top_k_ptr + row)
        top_p = tl.load(top_p_ptr + row)
        floor = log_min_p
        if (top_k > 0) & (top_k < vocab_size):
            if top_k <= num_groups:
                floor = tl.maximum(floor, _kth_largest(values, top_k))
        elif top_p < 1:
            # Tokens below this weigh less than (1 - top_p) in sum, even if all of them do; and
            # all tokens weigh at least as much as the largest of each group.
            weight = tl.sum(tl.where(values >= log_min_p, tl.exp(values), 0.0), axis=0)
            floor = tl.maximum(floor, tl.log((1 - top_p) * weight / vocab_size) - 0.01)
        tl.store(bounds_ptr + row * 3, largest)
        tl.store(bounds_ptr + row * 3 + 1, log_min_p)
        tl.store(bounds_ptr + row * 3 + 2, floor)
        tl.store(sums_ptr + row * 2, 0)
        tl.store(sums_ptr + row * 2 + 1, 0)
    tl.store(tokens_ptr + row, token)


@triton.jit
def _log_or_minus_infinity(x):
    return tl.where(x > 0, tl.log(tl.where(x > 0, x, 1.0)), float("-inf"))


@triton.jit
def _kth_largest(values, k):
    """The k-th largest of values that are zero or less."""
    too_few = tl.full((), ABOVE_ALL, tl.uint32)
    enough = tl.full((), BELOW_ALL, tl.uint32)
    while enough - too_few > 1:
        pivots = pivots_between(too_few, enough)
        is_from = values[:, None] >= as_float(pivots)[None, :]  # [GROUPS, pivots]
        counts = tl.sum(is_from.to(tl.int32), axis=0)
        too_few, enough = narrowed(too_few, enough, pivots, counts >= k)
    return as_float(enough)
