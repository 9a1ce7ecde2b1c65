"""Write runs on a GPU: a program for each run, see kernels/write_runs.py."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .aot import Specialization

# Most runs are a few numbers long; the tokens of a prompt come in pieces. Not yet measured.
_BLOCK = 256
_NUM_WARPS = 1


def write_runs(
    memory: Tensor, destinations: Tensor, lengths: Tensor, sources: Tensor, values: Tensor
) -> None:
    assert memory.dtype == lengths.dtype == sources.dtype == values.dtype == torch.int32
    assert destinations.dtype == torch.int64 and memory.is_contiguous() and values.is_contiguous()
    assert destinations.shape == lengths.shape == sources.shape, destinations.shape
    if not len(lengths):
        return
    _write_runs_kernel[(len(lengths),)](
        memory_ptr=memory,
        destinations_ptr=destinations,
        lengths_ptr=lengths,
        sources_ptr=sources,
        values_ptr=values,
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )


@triton.jit
def _write_runs_kernel(
    memory_ptr,
    destinations_ptr,
    lengths_ptr,
    sources_ptr,
    values_ptr,
    BLOCK: tl.constexpr,
):
    run = tl.program_id(0)
    to_ptr = memory_ptr + tl.load(destinations_ptr + run)
    from_ptr = values_ptr + tl.load(sources_ptr + run)
    length = tl.load(lengths_ptr + run)
    for start in range(0, length, BLOCK):
        offsets = start + tl.arange(0, BLOCK)  # [BLOCK]
        is_inside = offsets < length
        values = tl.load(from_ptr + offsets, mask=is_inside)
        tl.store(to_ptr + offsets, values, mask=is_inside)


def aot_specializations() -> Iterator[Specialization]:
    pointers = dict.fromkeys(("memory_ptr", "lengths_ptr", "sources_ptr", "values_ptr"), "*i32")
    signature = pointers | {"destinations_ptr": "*i64"}
    yield Specialization(_write_runs_kernel, signature, {"BLOCK": _BLOCK}, _NUM_WARPS, 1)
