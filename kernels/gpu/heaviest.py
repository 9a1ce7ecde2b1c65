"""The heaviest tokens of a row up to a total weight, found without sorting.

top_k and top_p both ask for the fewest, largest tokens that together weigh a target or more: their
number, or their probability. Bisecting the bits of the threshold finds exactly those. Weights are
integers, so their sums are the same in every order, whatever else the batch holds.

A row is a tuple: (logits_ptr, vocab_size, largest, temperature, floor, ids_ptr, num_listed). A
value is (logit - largest) / temperature, at most zero, and minus infinity below `floor`. If
num_listed is not negative, tokens that are not listed count as below it. What is kept of a row is
(threshold, last): values above the threshold, and of those equal to it the ids up to `last`.
"""

import triton
import triton.language as tl

from .bisection import ABOVE_ALL, BELOW_ALL, as_float, narrowed, pivots_between


@triton.jit
def keep_heaviest(row, kept, target, BY_COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Keep the fewest, largest of the tokens kept that weigh `target` (int64, positive) or more.

    With BY_COUNT each weighs 1, else its mass. Of equal ones those with the lowest ids are kept.
    If all of them weigh less, all are kept.
    """
    too_light = tl.full((), ABOVE_ALL, tl.uint32)
    heavy_enough = tl.full((), BELOW_ALL, tl.uint32)
    above, reached = tl.full((), 0, tl.int64), tl.full((), 0, tl.int64)
    while heavy_enough - too_light > 1:
        pivots = pivots_between(too_light, heavy_enough)
        weights = weights_from(row, kept, as_float(pivots), BY_COUNT, BLOCK)
        is_enough = weights >= target
        above = tl.maximum(above, tl.max(tl.where(is_enough, 0, weights), axis=0))
        if tl.max(weights, axis=0) >= target:
            reached = tl.min(tl.where(is_enough, weights, 1 << 62), axis=0)
        too_light, heavy_enough = narrowed(too_light, heavy_enough, pivots, is_enough)
    threshold = as_float(heavy_enough)
    each = _weight(threshold, BY_COUNT)
    last = row[1]
    if reached - each >= target:
        last = _last_of_equal(row, kept, threshold, (target - above + each - 1) // each, BLOCK)
    old_threshold, old_last = kept
    is_same = threshold <= old_threshold
    last = tl.where(is_same, tl.minimum(last, old_last), last)
    return tl.maximum(threshold, old_threshold), last


@triton.jit
def weights_from(row, kept, pivots, BY_COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """The weight of the tokens kept whose value is each of the pivots or more: int64 [pivots]."""
    total = tl.zeros_like(pivots).to(tl.int64)
    for start in range(0, num_candidates(row), BLOCK):
        _, values = load_kept(row, kept, start, BLOCK)
        weights = _weight(values, BY_COUNT)
        is_from = values[:, None] >= pivots[None, :]  # [BLOCK, pivots]
        total += tl.sum(tl.where(is_from, weights[:, None], 0), axis=0)
    return total


@triton.jit
def load_kept(row, kept, start, BLOCK: tl.constexpr):
    """Ids and values of BLOCK tokens, the `start`-th first; minus infinity where none is kept."""
    logits_ptr, vocab_size, largest, temperature, floor, ids_ptr, num_listed = row
    threshold, last = kept
    places = start + tl.arange(0, BLOCK)
    is_inside = places < num_candidates(row)
    is_listed = num_listed >= 0
    ids = tl.load(ids_ptr + places, mask=is_inside & is_listed, other=0)
    ids = tl.where(is_listed, ids, places)
    logits = tl.load(logits_ptr + ids, mask=is_inside, other=float("-inf"))
    values = tl.div_rn(logits - largest, temperature)
    is_kept = (values > threshold) | ((values == threshold) & (ids <= last))
    return ids, tl.where(is_kept & (values >= floor), values, float("-inf"))


@triton.jit
def num_candidates(row):
    return tl.where(row[6] >= 0, row[6], row[1])


@triton.jit
def mass(values):
    """exp(values) in units of 2^-40, int64: 2^22 tokens of the largest add up without overflow."""
    return (tl.exp(values) * 2.0**40).to(tl.int64)


@triton.jit
def _weight(values, BY_COUNT: tl.constexpr):
    if BY_COUNT:
        weight = (values <= 0).to(tl.int64)
    else:
        weight = mass(values)
    return weight


@triton.jit
def _last_of_equal(row, kept, value, count, BLOCK: tl.constexpr):
    """The `count`-th lowest id of the tokens kept that are equal to `value`."""
    enough = row[1]
    too_few = 0 * enough - 1
    while enough - too_few > 1:
        pivots = pivots_between(too_few, enough)
        counts = tl.zeros_like(pivots).to(tl.int64)
        for start in range(0, num_candidates(row), BLOCK):
            ids, values = load_kept(row, kept, start, BLOCK)
            is_counted = (values == value)[:, None] & (ids[:, None] <= pivots[None, :])
            counts += tl.sum(is_counted.to(tl.int64), axis=0)
        too_few, enough = narrowed(too_few, enough, pivots, counts >= count)
    return enough
