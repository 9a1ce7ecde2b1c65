"""A step in parts, where memory does not suffice for all of it at once.

A part is a stretch of the step's tokens. What it computes is what a step of its own would: a prompt
that is cut goes on in the next part where it ended, as a chunk of it does in the next step.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from .rows import PlanColumns

Result = TypeVar("Result")


def halves(columns: PlanColumns) -> tuple[PlanColumns, PlanColumns]:
    """Return the first and the second half of the tokens, at least two; a row may be in both.

    Such a row is sampled with its last token, in the second.
    """
    ends = np.cumsum(columns.num_new_tokens)
    middle = int(ends[-1]) // 2
    num_first = int(np.searchsorted(ends, middle))
    left = int(ends[num_first]) - middle
    is_cut = left > 0
    first = slice(0, num_first + 1)
    second = slice(num_first if is_cut else num_first + 1, None)
    first_half, second_half = (
        PlanColumns(
            columns.row[part],
            columns.num_new_tokens[part].copy(),
            columns.needs_sample[part].copy(),
        )
        for part in (first, second)
    )
    if is_cut:
        first_half.num_new_tokens[-1] -= left
        first_half.needs_sample[-1] = False
        second_half.num_new_tokens[0] = left
    return first_half, second_half


def run_in_parts(
    run: Callable[[PlanColumns], Result],
    columns: PlanColumns,
    return_freed_memory: Callable[[], None],
) -> Iterator[Result]:
    """Run a step, in halves of halves where the device's memory does not suffice; yield the parts.

    Args:
        run: computes a part, after all before it; has changed nothing if it raises.
        return_freed_memory: makes one piece of what the failed attempt has left.

    Raises torch.OutOfMemoryError if it does not suffice for a single token.
    """
    try:
        result = run(columns)
    except torch.OutOfMemoryError:
        if columns.num_new_tokens.sum() < 2:
            raise
    else:
        yield result
        return
    # Only here: while the error is handled, its traceback holds what the attempt has allocated.
    return_freed_memory()
    for half in halves(columns):
        yield from run_in_parts(run, half, return_freed_memory)
