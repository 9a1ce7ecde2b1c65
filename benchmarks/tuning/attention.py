"""What attention is tuned on: heads of well-known models, batches that a server has."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu_check.attention_cases import Groups, decode_cases, prefill_cases
from benchmarks.gpu_check.kernel_case import Cost, Inputs, KernelCase
from benchmarks.gpu_check.models import LLAMA_8B, ModelShape
from octavo.kernels.gpu.decode_work import LAUNCHES as DECODE_LAUNCHES
from octavo.kernels.gpu.decode_work import DecodeShape
from octavo.kernels.gpu.prefill_launch import LAUNCHES as PREFILL_LAUNCHES
from octavo.kernels.gpu.prefill_launch import PrefillShape

from .subject import Subject, around

_BLOCK_SIZE = 16
# Up to 16 query heads of a KV head are the same to a launch.
_MODELS = (
    LLAMA_8B,
    replace(LLAMA_8B, name="heads of Llama-3.2-1B", head_dim=64),
    replace(LLAMA_8B, name="heads of Gemma-3-12B", num_heads=16, head_dim=256),
)
# Of the cache's numbers: bfloat16, fp8.
_ITEMSIZES = (2, 1)
_DECODES: Sequence[Groups] = ([(1, 4096)], [(32, 4096)], [(256, 1024)], [(1, 65_536), (15, 4096)])
_PREFILLS: Sequence[Groups] = ([(2048, 2048)], [(8192, 8192)], [(1024, 3072)])


def attention_subjects() -> Iterator[Subject[Any, Any]]:
    for model in _MODELS:
        for itemsize in _ITEMSIZES:
            yield decode_subject(model, _DECODES, itemsize)
            yield prefill_subject(model, _PREFILLS, itemsize)


def decode_subject(
    model: ModelShape, batches: Sequence[Groups], itemsize: int
) -> Subject[Any, Any]:
    heads_per_kv_head = model.num_heads // model.num_kv_heads
    return Subject(
        DECODE_LAUNCHES,
        DecodeShape.of(heads_per_kv_head, model.head_dim, itemsize),
        [_cached_in(each, itemsize) for each in decode_cases(model, batches, _BLOCK_SIZE)],
        {
            "tile": around(32, 64, most=128),
            "programs_per_sm": (1, 2, 3, 4),
            "num_warps": (4, 8),
            "num_stages": (2, 3, 4, 5),
        },
    )


def prefill_subject(
    model: ModelShape, batches: Sequence[Groups], itemsize: int
) -> Subject[Any, Any]:
    heads_per_kv_head = model.num_heads // model.num_kv_heads
    return Subject(
        PREFILL_LAUNCHES,
        PrefillShape.of(heads_per_kv_head, model.head_dim, itemsize),
        [_cached_in(each, itemsize) for each in prefill_cases(model, batches, _BLOCK_SIZE)],
        {
            "rows": (64, 128),
            "tile": (16, 32, 64, 128),
            "num_warps": (4, 8),
            "num_stages": (2, 3, 4),
        },
    )


def _cached_in(case: KernelCase, itemsize: int) -> KernelCase:
    """Return the case with a cache of fp8, if its numbers are of one byte."""
    if itemsize > 1:
        return case

    def make(device: str, dtype: torch.dtype) -> Inputs:
        q, k_cache, v_cache, *others = case.make(device, dtype)
        return [q, *(each.to(torch.float8_e4m3fn) for each in (k_cache, v_cache)), *others]

    def cost(inputs: Inputs) -> Cost:
        q, k_cache, v_cache, *_ = inputs
        return Cost(2 * q.nbytes + k_cache.nbytes + v_cache.nbytes, case.cost(inputs).flops)

    return replace(case, shape=f"{case.shape}, fp8 cache", make=make, cost=cost)
