"""Gumbel noise as a function of seed, position and token id, on the device; see ../sampling.py.

Triton's Philox is Philox4x32-10 with the constants of the paper: its words are those of the
reference, bit for bit.
"""

import triton
import triton.language as tl


@triton.jit
def gumbel_noise(seed, position, token_ids):
    """The noise of any int32 token ids; each costs a call of Philox."""
    word0, word1, word2, word3 = _words(seed, position, token_ids // 4)
    lane = token_ids % 4
    words = tl.where(lane < 2, tl.where(lane == 0, word0, word1), tl.where(lane == 2, word2, word3))
    return _noise_of(words)


@triton.jit
def gumbel_noise_of_block(seed, position, first_token, SIZE: tl.constexpr):
    """The noise of SIZE tokens from `first_token` on, both multiples of 4: float32 [SIZE].

    One call of Philox gives the words of four neighbours.
    """
    groups = first_token // 4 + tl.arange(0, SIZE // 4)
    word0, word1, word2, word3 = _words(seed, position, groups)
    pairs = tl.join(tl.join(word0, word2), tl.join(word1, word3))  # [SIZE / 4, 2, 2]
    return _noise_of(tl.reshape(pairs, (SIZE,)))


@triton.jit
def _words(seed, position, groups):
    groups = groups.to(tl.uint32, bitcast=True)
    zero = groups * 0
    position_low = zero + (position & 0xFFFFFFFF).to(tl.uint32)
    position_high = zero + ((position >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return tl.philox(seed, groups, position_low, position_high, zero)


@triton.jit
def _noise_of(words):
    v = (words.to(tl.float32) + 0.5) * 2.0**-32
    # Rounding can carry v to 1; there the noise is near its minimum, and this keeps it finite.
    v = tl.minimum(v, 1 - 2.0**-24)
    # log1p(-v), exact to a few units in the last place also where v is tiny and the noise large
    # (W. Kahan's correction of the rounding in 1 - v).
    rest = 1 - v
    log_rest = tl.where(rest == 1, -v, tl.log(rest) * (-v / tl.where(rest == 1, 1.0, rest - 1)))
    return -tl.log(-log_rest)
