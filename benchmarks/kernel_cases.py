"""The kernels on shapes of a Llama of 8 billion parameters, for whatever device runs them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.kernels.copy_blocks import copy_blocks_reference
from octavo.kernels.kv_pages import KvPages, page_size
from octavo.kernels.linear import linear_reference
from octavo.kernels.paged_attention import paged_attention_reference
from octavo.kernels.rms_norm import rms_norm_reference
from octavo.kernels.rope_and_store_kv import rope_and_store_kv_reference
from octavo.kernels.sampling import sample_reference
from octavo.kernels.silu_and_mul import silu_and_mul_reference

_HIDDEN, _INTERMEDIATE, _VOCAB = 4096, 14_336, 128_256
_HEADS, _KV_HEADS, _HEAD_DIM = 32, 8, 128
_BLOCK = 16
_EPS = 1e-5

Inputs = Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class KernelCase:
    """A kernel with inputs to run it on.

    Attributes:
        make: draws the inputs, on the CPU and in float32 where they are real numbers.
        run: the kernel's reference; returns what it computed, also where it works in place.
        count_bytes: the least that has to be moved, in and out.
        dtypes: what the kernel is used with.
    """

    name: str
    shape: str
    make: Callable[[], Inputs]
    run: Callable[..., Tensor]
    count_bytes: Callable[[Inputs, Tensor], int]
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16)


def moved(inputs: Inputs, dtype: torch.dtype, device: str) -> Inputs:
    """Return copies of the inputs on a device, the real numbers among them in `dtype`."""
    return [
        tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        for tensor in inputs
    ]


def error_of(case: KernelCase, inputs: Inputs, dtype: torch.dtype, device: str) -> float:
    """Return how far a device is from float32 on the CPU, for inputs rounded to `dtype`.

    Of real numbers the largest difference, relative to their size; of token ids, how many differ.
    """
    rounded = moved(inputs, dtype, "cpu")
    expected = case.run(*moved(rounded, torch.float32, "cpu"))
    actual = case.run(*moved(rounded, dtype, device)).to("cpu", expected.dtype)
    if not expected.is_floating_point():
        return float((actual != expected).sum())
    size = expected.abs() + expected.square().mean().sqrt()
    # Where a NaN is, there is no number that it would be near to.
    return ((actual - expected).abs() / size).nan_to_num(torch.inf).max().item()


def _all_bytes(inputs: Inputs, output: Tensor) -> int:
    return sum(tensor.nbytes for tensor in inputs) + output.nbytes


def _rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return rms_norm_reference(x, weight, _EPS)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    return linear_reference(x, weight, x.dtype)


def _rope_inputs(num_tokens: int) -> Inputs:
    positions = torch.randperm(num_tokens)
    angles = positions[:, None] / 10_000 ** torch.linspace(0, 1, _HEAD_DIM // 2)
    q = torch.randn(num_tokens, _HEADS, _HEAD_DIM)
    k, v = torch.randn(2, num_tokens, _KV_HEADS, _HEAD_DIM)
    cos_sin = torch.cat((angles.cos(), angles.sin()), dim=1)
    return [q, k, v, cos_sin, positions, torch.randperm(num_tokens)]


def _rope(
    q: Tensor, k: Tensor, v: Tensor, cos_sin: Tensor, positions: Tensor, slots: Tensor
) -> Tensor:
    pages = _empty_pages(len(slots) // _BLOCK, q)
    rope_and_store_kv_reference(q, k, v, cos_sin.float(), positions, pages, slots)
    keys, values = pages.read(torch.arange(len(pages.tensor), device=q.device), len(slots))
    return torch.cat([q.flatten(), keys.flatten(), values.flatten()])


def _empty_pages(num_blocks: int, like: Tensor) -> KvPages:
    """How keys and values lie depends on the dtype, so that a case starts from them in order."""
    shape = (num_blocks, _KV_HEADS, 2, page_size(_BLOCK, _HEAD_DIM))
    return KvPages(like.new_zeros(shape), _BLOCK, _HEAD_DIM)


def _attention_inputs(num_requests: int, seq_len: int) -> Inputs:
    """Decoding: each request has one new token, and blocks anywhere in the cache."""
    num_blocks = num_requests * seq_len // _BLOCK
    keys, values = torch.randn(2, num_blocks * _BLOCK, _KV_HEADS, _HEAD_DIM)
    return [
        torch.randn(num_requests, _HEADS, _HEAD_DIM),
        keys,
        values,
        torch.randperm(num_blocks).int().view(num_requests, -1),
        torch.full((num_requests,), seq_len, dtype=torch.int32),
        torch.arange(num_requests + 1, dtype=torch.int32),
    ]


def _attention(*inputs: Tensor) -> Tensor:
    q, keys, values, block_tables, seq_lens, query_start_loc = inputs
    pages = _empty_pages(len(keys) // _BLOCK, q)
    pages.write(torch.arange(len(keys), device=q.device), keys, values)
    scale = 1 / math.sqrt(_HEAD_DIM)
    return paged_attention_reference(q, pages, block_tables, seq_lens, query_start_loc, scale)


def _sampling_inputs(num_rows: int) -> Inputs:
    """Rows that are greedy, and such that draw with top-k, top-p and min-p."""
    kind = torch.arange(num_rows) % 4
    return [
        3 * torch.randn(num_rows, _VOCAB),
        torch.where(kind == 0, 0.0, 0.8),
        torch.where(kind == 1, 50, 0).int(),
        torch.where(kind == 2, 0.9, 1.0),
        torch.where(kind == 3, 0.05, 0.0),
        torch.randint(2**62, (num_rows,)),
        torch.arange(num_rows),
    ]


def _copied(kv_cache: Tensor, source_ids: Tensor, target_ids: Tensor) -> Tensor:
    copy_blocks_reference(kv_cache, source_ids, target_ids)
    return kv_cache[:, target_ids]


CASES = (
    KernelCase(
        "rms_norm",
        f"256 x {_HIDDEN}",
        lambda: [torch.randn(256, _HIDDEN), torch.randn(_HIDDEN)],
        _rms_norm,
        _all_bytes,
    ),
    KernelCase(
        "silu_and_mul",
        f"256 x {2 * _INTERMEDIATE}",
        lambda: [torch.randn(256, 2 * _INTERMEDIATE)],
        silu_and_mul_reference,
        _all_bytes,
    ),
    KernelCase(
        "linear",
        f"64 x {_HIDDEN} to {_HIDDEN}",
        lambda: [torch.randn(64, _HIDDEN), torch.randn(_HIDDEN, _HIDDEN) / math.sqrt(_HIDDEN)],
        _linear,
        _all_bytes,
    ),
    KernelCase(
        "rope_and_store_kv",
        f"256 tokens, heads {_HEADS}/{_KV_HEADS}",
        lambda: _rope_inputs(256),
        _rope,
        # q, k and v are read and written, the angles read.
        lambda inputs, _: 2 * sum(x.nbytes for x in inputs[:3]) + inputs[3].nbytes,
    ),
    KernelCase(
        "paged_attention",
        f"decode 8 x 1024, heads {_HEADS}/{_KV_HEADS}, block {_BLOCK}",
        lambda: _attention_inputs(8, 1024),
        _attention,
        _all_bytes,
    ),
    KernelCase(
        "sampling",
        f"64 x {_VOCAB}",
        lambda: _sampling_inputs(64),
        sample_reference,
        lambda inputs, _: inputs[0].nbytes,
        dtypes=(torch.float32,),
    ),
    KernelCase(
        "copy_blocks",
        "64 blocks of 8 layers",
        lambda: [
            torch.randn(8, 128, 2 * _BLOCK, _KV_HEADS, _HEAD_DIM),
            torch.arange(64),
            torch.arange(64, 128),
        ],
        _copied,
        lambda _, output: 2 * output.nbytes,
    ),
)
