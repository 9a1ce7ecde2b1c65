"""The largest logit of each group of tokens: what sampling and log-probabilities look at first.

A thousand maxima say of a row of a hundred thousand logits which is the largest, and where to look
for the k largest: a value that k groups reach is reached by k tokens.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization

# Tokens of a group: four cache lines. 2,048 logits give 128 threads four loads of 16 bytes each,
# and 128,000 tokens are 63 programs, so that few rows fill a GPU. Not yet measured.
GROUP_SIZE = 128
_GROUPS_OF_PROGRAM = 16
_NUM_WARPS = 4

# Of a row, as one program looks at them: 2^18 tokens at most.
LEAST_PADDED, MOST_GROUPS = 64, 2048


def group_maxima(logits: Tensor) -> Tensor:
    """Return the largest logit of each GROUP_SIZE tokens, the last group of a row being shorter.

    Args:
        logits: float32 [num_rows, vocab_size], contiguous.
    Returns:
        float32 [num_rows, ceil(vocab_size / GROUP_SIZE)]; infinity where a group has a NaN.
    """
    num_rows, vocab_size = logits.shape
    num_groups = triton.cdiv(vocab_size, GROUP_SIZE)
    maxima = torch.empty(num_rows, num_groups, device=logits.device)
    _group_maxima_kernel[triton.cdiv(num_groups, _GROUPS_OF_PROGRAM), num_rows](
        logits_ptr=logits,
        maxima_ptr=maxima,
        vocab_size=vocab_size,
        num_groups=num_groups,
        GROUP=GROUP_SIZE,
        GROUPS=_GROUPS_OF_PROGRAM,
        num_warps=_NUM_WARPS,
    )
    return maxima


def padded(count: int) -> int:
    """Return the power of two that one program takes so many groups, or chunks, as."""
    assert count <= MOST_GROUPS, count
    return max(LEAST_PADDED, 1 << (count - 1).bit_length())


def aot_specializations() -> Iterator[Specialization]:
    yield Specialization(
        _group_maxima_kernel,
        {"logits_ptr": "*fp32", "maxima_ptr": "*fp32", "vocab_size": "i32", "num_groups": "i32"},
        {"GROUP": GROUP_SIZE, "GROUPS": _GROUPS_OF_PROGRAM},
        _NUM_WARPS,
        num_stages=3,
    )


@triton.jit
def _group_maxima_kernel(
    logits_ptr, maxima_ptr, vocab_size, num_groups, GROUP: tl.constexpr, GROUPS: tl.constexpr
):
    row = tl.program_id(1).to(tl.int64)
    groups = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    ids = groups[:, None] * GROUP + tl.arange(0, GROUP)[None, :]  # [GROUPS, GROUP]
    logits = tl.load(
        logits_ptr + row * vocab_size + ids, mask=ids < vocab_size, other=float("-inf")
    )
    # A NaN counts as infinity: with either a row has no most probable token.
    logits = tl.where(logits == logits, logits, float("inf"))
    largest = tl.max(logits, axis=1)
    tl.store(maxima_ptr + row * num_groups + groups, largest, mask=groups < num_groups)
