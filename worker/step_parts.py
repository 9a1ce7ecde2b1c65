"""A step in parts, where memory does not suffice for all of it at once.

A part of a forward pass is a stretch of the step's tokens. What it computes is what a step of its
own would: a prompt that is cut goes on in the next part where it ended, as a chunk of it does in
the next step. What follows the forward pass is computed row by row, and a part is some of the rows.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch

from .plan_columns import PlanColumns

Part = TypeVar("Part")
Result = TypeVar("Result")


def halves(columns: PlanColumns) -> tuple[PlanColumns, PlanColumns] | None:
    """Return the first and the second half of the tokens; None for one. A row may be in both.

    Such a row is sampled with its last token, in the second.
    """
    ends = np.cumsum(columns.num_new_tokens)
    if ends[-1] < 2:
        return None
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


def slice_halves(some: slice) -> tuple[slice, slice] | None:
    """Return the first and the second half of a slice with both ends; None for one place."""
    if some.stop - some.start < 2:
        return None
    middle = (some.start + some.stop) // 2
    return slice(some.start, middle), slice(middle, some.stop)


def run_in_parts(
    run: Callable[[Part], Result],
    part: Part,
    halves: Callable[[Part], tuple[Part, Part] | None],
    return_freed_memory: Callable[[], None],
    give_up: Callable[[Part], Result] | None = None,
) -> Iterator[Result]:
    """Run a step, in halves of halves where the device's memory does not suffice; yield the parts.

    Args:
        run: computes a part, after all before it; has changed nothing if it raises.
        halves: divides a part; None: it is one that cannot be, and is tried once more.
        return_freed_memory: makes one piece of what the failed attempt has left.
        give_up: answers for a part that cannot be divided and finds no memory.

    Raises torch.OutOfMemoryError if there is such a part and nobody to give it up.
    """
    try:
        result = run(part)
    except torch.OutOfMemoryError:
        pass
    else:
        yield result
        return
    # Only here: while the error is handled, its traceback holds what the attempt has allocated.
    return_freed_memory()
    divided = halves(part)
    if divided is None:
        yield _once_more(run, part, give_up)
        return
    for half in divided:
        yield from run_in_parts(run, half, halves, return_freed_memory, give_up)


def try_twice(work: Callable[[], Result], return_freed_memory: Callable[[], None]) -> Result:
    """Do what has no parts; raises torch.OutOfMemoryError if it finds no memory again."""
    (result,) = run_in_parts(lambda _: work(), None, lambda _: None, return_freed_memory)
    return result


def _once_more(
    run: Callable[[Part], Result], part: Part, give_up: Callable[[Part], Result] | None
) -> Result:
    try:
        return run(part)
    except torch.OutOfMemoryError:
        if give_up is None:
            raise
    return give_up(part)
