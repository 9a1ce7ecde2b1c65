"""Sampling: the next token of each row, drawn with noise that anyone can compute again.

    token = argmax over kept tokens of logits / temperature + g        (Gumbel-max)
    g = −log(−log(u)),  u = 1 − (word + ½) / 2³²
    word = lane token_id mod 4 of Philox4x32-10(key = seed, counter = (token_id div 4, position))

A draw depends on nothing but (seed, position, token_id), so it is the same in every batch, after
a resumption, and on every machine up to rounding.

Sources: Philox from Parallel Random Numbers: As Easy as 1, 2, 3 (Salmon et al., 2011); Gumbel-max
as in A* Sampling (Maddison et al., 2014); top_p is nucleus sampling (Holtzman et al., 2019); min_p
is that of Turning Up the Heat (Nguyen et al., 2024).
"""

import torch
from torch import Tensor

from .cpu import library
from .gpu.interpreter import interpreting

Words = tuple[Tensor, ...]

_LOW_32 = 0xFFFFFFFF


def sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> Tensor:
    """Choose a token for each row.

    Ties go to the lowest token id, everywhere: in the argmax, and where top_k or top_p cut between
    tokens of equal probability. min_p is applied first, then top_k; top_p then keeps the smallest
    set of the most probable tokens whose probabilities, among those still there, sum to at least
    top_p.

    Args:
        logits: float32 [num_rows, vocab_size], contiguous.
        temperature: float32 [num_rows]; 0 takes the most probable token, and the rest is not read.
        top_k: int32 [num_rows]; 0 keeps all.
        top_p: float32 [num_rows]; 1 keeps all.
        min_p: float32 [num_rows]; keeps tokens at least this share as probable as the most
            probable one. 0 keeps all.
        seeds: int64 [num_rows], the bits of an unsigned 64-bit seed.
        positions: int64 [num_rows], index in its sequence of the token to be drawn.
    Returns:
        int64 [num_rows]; -1 for a row that has a NaN or whose largest logit is not finite.
    """
    arguments = (logits, temperature, top_k, top_p, min_p, seeds, positions)
    _check(*arguments)
    if logits.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import sampling as gpu

        return gpu.sample(*arguments)
    cpu = library.load_for(logits.dtype)
    if cpu is None:
        return sample_reference(*arguments)
    num_rows, vocab_size = logits.shape
    # Its logarithm is what the scaled logits are compared with; minus infinity keeps all.
    log_min_p = min_p.log()
    tokens = torch.empty(num_rows, dtype=torch.int64)
    cpu.sample(
        logits.data_ptr(),
        temperature.data_ptr(),
        top_k.data_ptr(),
        top_p.data_ptr(),
        log_min_p.data_ptr(),
        seeds.data_ptr(),
        positions.data_ptr(),
        tokens.data_ptr(),
        num_rows,
        vocab_size,
    )
    return tokens


def sample_reference(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> Tensor:
    largest = logits.amax(dim=-1, keepdim=True)  # NaN if the row has one.
    is_greedy = (temperature == 0)[:, None]
    scaled = (logits - largest) / torch.where(is_greedy, 1.0, temperature[:, None])
    is_below = (scaled < min_p.log()[:, None]) & ~is_greedy
    scaled = scaled.masked_fill(is_below, -torch.inf)
    ranked, token_ids = scaled.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logits.shape[1], device=logits.device)
    is_beyond_k = (top_k[:, None] > 0) & (rank >= top_k[:, None])
    mass = ranked.masked_fill(is_beyond_k, -torch.inf).exp().double()
    before = mass.cumsum(dim=-1) - mass
    is_beyond_p = (top_p[:, None] < 1) & (before >= top_p[:, None] * mass.sum(-1, keepdim=True))
    is_cut = (is_beyond_k | is_beyond_p) & (rank > 0) & ~is_greedy
    scores = scaled.masked_fill(is_cut.scatter(1, token_ids, is_cut), -torch.inf)
    noise = gumbel_noise(seeds, positions, logits.shape[1])
    tokens = (scores + noise.masked_fill(is_greedy, 0.0)).argmax(dim=-1)
    return tokens.masked_fill(~largest.squeeze(-1).isfinite(), -1)


def _check(logits: Tensor, *columns: Tensor) -> None:
    temperature, top_k, top_p, min_p, seeds, positions = columns
    assert logits.dtype == torch.float32 and logits.is_contiguous(), logits.dtype
    assert temperature.dtype == top_p.dtype == min_p.dtype == torch.float32
    assert top_k.dtype == torch.int32 and seeds.dtype == positions.dtype == torch.int64
    for column in columns:
        assert column.shape == (len(logits),) and column.is_contiguous(), column.shape


def gumbel_noise(seeds: Tensor, positions: Tensor, vocab_size: int) -> Tensor:
    """The noise g of each row for each token: float32 [num_rows, vocab_size]."""
    groups = torch.arange(-(-vocab_size // 4), device=seeds.device)[None, :]
    seeds, positions = seeds[:, None], positions[:, None]
    counter = (groups, positions & _LOW_32, positions >> 32 & _LOW_32, torch.zeros_like(groups))
    words = philox4x32(counter, (seeds & _LOW_32, seeds >> 32 & _LOW_32))
    v = (torch.stack(words, dim=-1).flatten(1)[:, :vocab_size].float() + 0.5) * 2.0**-32
    # Rounding can carry v to 1; there g is near its minimum, and the clamp keeps it finite.
    return -torch.log(-torch.log1p(-v.clamp(max=1 - 2.0**-24)))


def philox4x32(counter: Words, key: Words) -> Words:
    """Philox4x32-10: four random words for each counter; all words are int64 in [0, 2³²)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The products wrap around in int64; their 64 bits are those of the unsigned product.
        product0, product1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (product1 >> 32 & _LOW_32) ^ c1 ^ k0,
            product1 & _LOW_32,
            (product0 >> 32 & _LOW_32) ^ c3 ^ k1,
            product0 & _LOW_32,
        )
        k0, k1 = (k0 + 0x9E3779B9) & _LOW_32, (k1 + 0xBB67AE85) & _LOW_32
    return c0, c1, c2, c3
