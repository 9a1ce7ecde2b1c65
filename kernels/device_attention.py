"""The attention of a step on a GPU: which kernel attends, and what all layers share of the step.

Requests with one new token read their whole cache for it, and it is memory that limits them; those
with many compute. There is a kernel for each kind, and a step may have both: the first kind first.
"""

from typing import Protocol

from torch import Tensor

from .gpu.interpreter import interpreting
from .kv_blocks import KvBlocks
from .paged_attention import paged_attention
from .paged_tokens import PagedTokens

# Of a step; room for one number each.
_MAX_NUM_REQUESTS = 1 << 16


class StepAttention(Protocol):
    """Attends for the layers of one model, one after the other, and one step after the other."""

    def begin(self, tokens: PagedTokens) -> None:
        """Plan a step, before its first layer."""
        ...

    def attend(self, q: Tensor, blocks: KvBlocks, out: Tensor) -> None:
        """Attend in one layer; as paged_attention, for the tokens of the step that was begun.

        Args:
            out: like q, contiguous; overwritten.
        """
        ...


def step_attention(blocks: KvBlocks, num_heads: int, scale: float) -> StepAttention:
    """Return the attention of layers with such blocks: of kernels wherever they run."""
    if blocks.k_cache.is_cuda or interpreting():
        return DeviceAttention(blocks, num_heads, scale)
    return PlainAttention(scale)


class PlainAttention:
    """The same where no kernels run."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def begin(self, tokens: PagedTokens) -> None:
        self._tokens = tokens

    def attend(self, q: Tensor, blocks: KvBlocks, out: Tensor) -> None:
        tokens = self._tokens
        rows = (tokens.block_tables, tokens.seq_lens, tokens.query_start_loc)
        out.copy_(paged_attention(q, blocks, *rows, self._scale))


class DeviceAttention:
    """The same on a GPU."""

    def __init__(self, blocks: KvBlocks, num_heads: int, scale: float) -> None:
        """Make room for what is shared; `blocks` are those of any layer."""
        # Triton is there where a device is.
        from .gpu import decode_attention, decode_work, prefill_attention

        self._decode, self._prefill = decode_attention, prefill_attention
        self._plan = decode_work.plan_decode_work
        self._work = decode_work.DecodeWork.allocate(blocks.k_cache, num_heads, _MAX_NUM_REQUESTS)
        self._scale = scale

    def begin(self, tokens: PagedTokens) -> None:
        self._tokens = tokens
        if tokens.num_decodes:
            self._plan(self._work, tokens.seq_lens[: tokens.num_decodes])
        if tokens.num_decodes < len(tokens.seq_lens):
            # Those that follow count from their own first token.
            self._query_start_loc = (
                tokens.query_start_loc[tokens.num_decodes :] - tokens.num_decodes
            )

    def attend(self, q: Tensor, blocks: KvBlocks, out: Tensor) -> None:
        num_decodes = self._tokens.num_decodes
        if num_decodes:
            self._attend_decodes(q[:num_decodes], blocks, out[:num_decodes])
        if num_decodes < len(q):
            self._attend_others(q[num_decodes:], blocks, out[num_decodes:])

    def _attend_decodes(self, q: Tensor, blocks: KvBlocks, out: Tensor) -> None:
        self._decode.decode_attention(
            q,
            blocks.k_cache,
            blocks.v_cache,
            self._tokens.block_tables[: len(q)],
            self._tokens.seq_lens[: len(q)],
            self._scale,
            self._work,
            k_scale=blocks.k_scale,
            v_scale=blocks.v_scale,
            out=out,
        )

    def _attend_others(self, q: Tensor, blocks: KvBlocks, out: Tensor) -> None:
        first = self._tokens.num_decodes
        self._prefill.prefill_attention(
            q,
            blocks.k_cache,
            blocks.v_cache,
            self._tokens.block_tables[first:],
            self._tokens.seq_lens[first:],
            self._query_start_loc,
            self._scale,
            k_scale=blocks.k_scale,
            v_scale=blocks.v_scale,
            out=out,
        )
