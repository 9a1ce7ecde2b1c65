"""Finds where an ordered condition begins, looking at several pivots at a time.

    low, high = a number where it does not hold, one where it does
    while high - low > 1:
        pivots = pivots_between(low, high)
        low, high = narrowed(low, high, pivots, <the condition at each>)

Eight pivots cost little more than one where the time goes to loads and reductions, and nine parts
instead of two take 32 bits in eleven rounds.
"""

import triton
import triton.language as tl

# The bits of minus zero less one, and those of minus infinity: between them the bits of numbers
# that are not positive grow with their magnitude.
ABOVE_ALL = tl.constexpr(0x7FFFFFFF)
BELOW_ALL = tl.constexpr(0xFF800000)

_PIVOTS = tl.constexpr(8)


@triton.jit
def pivots_between(low, high):
    """Numbers that cut what is between two into nearly equal parts, ascending, at most `high`."""
    step = tl.maximum((high - low) // (_PIVOTS + 1), 1)
    return tl.minimum(low + step * (1 + tl.arange(0, _PIVOTS)).to(low.dtype), high)


@triton.jit
def narrowed(low, high, pivots, holds):
    return (
        tl.maximum(low, tl.max(tl.where(holds, low, pivots), axis=0)),
        tl.minimum(high, tl.min(tl.where(holds, pivots, high), axis=0)),
    )


@triton.jit
def as_float(bits):
    return bits.to(tl.float32, bitcast=True)
