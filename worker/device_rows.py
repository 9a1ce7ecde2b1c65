"""The rows as the device has them: everything that a step reads, or writes for the next one.

All of it is one tensor of int32, so that a plan, whatever it changes, is a list of runs in it
(run_list.py, row_changes.py). What is known on the host as well stands in `Rows`, which checks the
plans; which token was sampled last, only the device knows.

Idea: vLLM's model runner v2 (https://github.com/vllm-project/vllm).
"""

import math
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .block_tables import TRAP
from .rows import RowLimits

# What begins at a multiple of 16 bytes is read 16 bytes at a time.
_ALIGNMENT = 4


class DeviceRows:
    """All rows on the device, and the columns of the step that is to run next; int32 throughout.

    Attributes:
        memory: [size]; the others are views of it.
        token_ids: [num_rows, max_model_len + 1].
        num_tokens, num_computed_tokens, num_prompt_tokens: [num_rows].
        sampling: [4, num_rows]; the bits of temperature, top_p and min_p, then top_k.
        seed: [num_rows, 2], the bits of an int64 each.
        block_tables: for each KV group, [num_rows, max_blocks].
        step_rows: [num_rows + 1], the rows with work; room for one that is none behind them.
        query_start_loc: [num_rows + 2], as PagedTokens has it.
        wanted_tokens: [max_num_batched_tokens], those of the step whose hidden states are wanted.
        sampled_rows: [num_rows], the rows that get a token, those forked in the step last.
        source_rows: [num_rows], whose tokens each of them goes on from.
    """

    def __init__(self, limits: RowLimits, device: torch.device, *, poison: bool = False) -> None:
        """Take the memory. `poison` fills it with trap values: for tests."""
        num_rows, max_tokens = limits.num_rows, limits.max_model_len + 1
        # Every row of a table begins at a multiple, too.
        table = (num_rows, _aligned(-(-max_tokens // limits.block_size)))
        shapes: list[tuple[int, ...]] = [
            (num_rows, max_tokens),
            *[(num_rows,)] * 3,
            (4, num_rows),
            (num_rows, 2),
            *[table] * len(limits.num_blocks),
            (num_rows + 1,),
            (num_rows + 2,),
            (max(limits.max_num_batched_tokens, num_rows),),
            *[(num_rows,)] * 2,
        ]
        ends = list(accumulate(_aligned(math.prod(shape)) for shape in shapes))
        fill = TRAP if poison else 0
        self.memory = torch.full((ends[-1],), fill, dtype=torch.int32, device=device)
        views = [
            self.memory[start : start + math.prod(shape)].view(shape)
            for start, shape in zip([0, *ends], shapes, strict=False)
        ]
        (
            self.token_ids,
            self.num_tokens,
            self.num_computed_tokens,
            self.num_prompt_tokens,
            self.sampling,
            self.seed,
            *self.block_tables,
            self.step_rows,
            self.query_start_loc,
            self.wanted_tokens,
            self.sampled_rows,
            self.source_rows,
        ) = views

    @staticmethod
    def places(view: Tensor, index: NDArray[np.integer] | int = 0) -> NDArray[np.int64]:
        """Return where in `memory` the parts `view[index]` begin."""
        return np.asarray(index, np.int64) * view.stride(0) + int(view.storage_offset())


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
