"""The kernels that are no attention, on the shapes of a model."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from octavo.kernels import activation_quantize as reference_quantize
from octavo.kernels.add_rms_norm import add_rms_norm_reference
from octavo.kernels.add_rms_norm_quantize import add_rms_norm_quantize_reference
from octavo.kernels.copy_blocks import copy_blocks_reference
from octavo.kernels.gpu.activation import silu_and_mul
from octavo.kernels.gpu.activation_quantize import silu_and_mul_quantize
from octavo.kernels.gpu.add_rms_norm import add_rms_norm
from octavo.kernels.gpu.add_rms_norm_quantize import add_rms_norm_quantize
from octavo.kernels.gpu.copy_blocks import copy_blocks
from octavo.kernels.gpu.quantize_rows import quantize_rows
from octavo.kernels.gpu.rms_norm import rms_norm
from octavo.kernels.gpu.rms_norm_quantize import rms_norm_quantize
from octavo.kernels.gpu.rope_and_store_kv import rope_and_store_kv
from octavo.kernels.gpu.sampling import sample
from octavo.kernels.kv_blocks import KvBlocks
from octavo.kernels.quantize_rows import quantize_rows_reference
from octavo.kernels.rms_norm import rms_norm_reference
from octavo.kernels.rms_norm_quantize import rms_norm_quantize_reference
from octavo.kernels.rope_and_store_kv import rope_and_store_kv_reference
from octavo.kernels.sampling import sample_reference
from octavo.kernels.silu_and_mul import silu_and_mul_reference

from .kernel_case import Cost, Inputs, KernelCase, all_bytes, at_once
from .models import ModelShape

_EPS = 1e-5
_BLOCK_SIZE = 16
_FP8 = torch.float8_e4m3fn
# Half of the distance between neighbours, relative to the number.
_FP8_TOLERANCE = 2**-3


def elementwise_cases(model: ModelShape, num_tokens: int) -> Iterator[KernelCase]:
    """Yield what a layer does to each token beside attention and products."""
    hidden, intermediate = model.hidden_size, model.intermediate_size
    yield KernelCase(
        "rms_norm",
        f"{num_tokens} x {hidden}",
        lambda device, dtype: _rows(1, num_tokens, hidden, device, dtype),
        at_once(lambda x, weight: rms_norm(x, weight, _EPS)),
        lambda x, weight: rms_norm_reference(x, weight, _EPS),
        lambda inputs: all_bytes(inputs, inputs[0]),
    )
    yield KernelCase(
        "add_rms_norm",
        f"{num_tokens} x {hidden}",
        lambda device, dtype: _rows(2, num_tokens, hidden, device, dtype),
        at_once(lambda x, residual, weight: (add_rms_norm(x, residual, weight, _EPS), residual)),
        lambda x, residual, weight: (
            add_rms_norm_reference(x, residual, weight, _EPS),
            residual,
        ),
        # The sum is written, too.
        lambda inputs: all_bytes(inputs, inputs[0], inputs[1]),
    )
    yield KernelCase(
        "silu_and_mul",
        f"{num_tokens} x {2 * intermediate}",
        lambda device, dtype: _rows(1, num_tokens, 2 * intermediate, device, dtype)[:1],
        at_once(silu_and_mul),
        silu_and_mul_reference,
        lambda inputs: Cost(inputs[0].nbytes * 3 // 2),
    )
    yield from quantizing_cases(model, num_tokens)
    yield rope_case(model, num_tokens)


def quantizing_cases(model: ModelShape, num_tokens: int) -> Iterator[KernelCase]:
    """Yield what is done to each token where products are of 8 bits."""
    hidden, intermediate = model.hidden_size, model.intermediate_size
    yield KernelCase(
        "quantize_rows to fp8",
        f"{num_tokens} x {hidden}",
        lambda device, dtype: _rows(1, num_tokens, hidden, device, dtype)[:1],
        at_once(lambda x: quantize_rows(x, _FP8)),
        lambda x: quantize_rows_reference(x, _FP8),
        lambda inputs: Cost(all_bytes(inputs).num_bytes + inputs[0].numel()),
        tolerance=_FP8_TOLERANCE,
    )
    yield KernelCase(
        "rms_norm_quantize to fp8",
        f"{num_tokens} x {hidden}",
        lambda device, dtype: _rows(1, num_tokens, hidden, device, dtype),
        at_once(lambda x, weight: rms_norm_quantize(x, weight, _EPS, _FP8)),
        lambda x, weight: rms_norm_quantize_reference(x, weight, _EPS, _FP8),
        lambda inputs: Cost(all_bytes(inputs).num_bytes + inputs[0].numel()),
        tolerance=_FP8_TOLERANCE,
    )
    yield KernelCase(
        "add_rms_norm_quantize to fp8",
        f"{num_tokens} x {hidden}",
        lambda device, dtype: _rows(2, num_tokens, hidden, device, dtype),
        at_once(
            lambda x, residual, weight: (
                *add_rms_norm_quantize(x, residual, weight, _EPS, _FP8),
                residual,
            )
        ),
        lambda x, residual, weight: (
            *add_rms_norm_quantize_reference(x, residual, weight, _EPS, _FP8),
            residual,
        ),
        lambda inputs: Cost(all_bytes(inputs, inputs[1]).num_bytes + inputs[0].numel()),
        tolerance=_FP8_TOLERANCE,
    )
    yield KernelCase(
        "silu_and_mul_quantize to fp8",
        f"{num_tokens} x {2 * intermediate}",
        lambda device, dtype: _rows(1, num_tokens, 2 * intermediate, device, dtype)[:1],
        at_once(lambda x: silu_and_mul_quantize(x, _FP8)),
        lambda x: reference_quantize.silu_and_mul_quantize_reference(x, _FP8),
        lambda inputs: Cost(inputs[0].nbytes + inputs[0].numel() // 2),
        tolerance=_FP8_TOLERANCE,
    )


def _rows(num_inputs: int, num_rows: int, dim: int, device: str, dtype: torch.dtype) -> Inputs:
    """Return inputs of [num_rows, dim], and the weight of their norm."""
    inputs = torch.randn(num_inputs, num_rows, dim, device=device, dtype=dtype)
    return [*inputs, torch.randn(dim, device=device, dtype=dtype)]


def rope_case(model: ModelShape, num_tokens: int) -> KernelCase:
    num_heads, num_kv_heads, head_dim = model.num_heads, model.num_kv_heads, model.head_dim
    num_blocks = -(-num_tokens // _BLOCK_SIZE)

    def make(device: str, dtype: torch.dtype) -> Inputs:
        positions = torch.randperm(num_tokens, device=device)
        frequencies = 10_000 ** -torch.linspace(0, 1, head_dim // 2, device=device)
        angles = torch.arange(num_tokens, device=device)[:, None] * frequencies
        q = torch.randn(num_tokens, num_heads, head_dim, device=device, dtype=dtype)
        k, v = torch.randn(2, num_tokens, num_kv_heads, head_dim, device=device, dtype=dtype)
        cache = torch.zeros(2, num_blocks, _BLOCK_SIZE, num_kv_heads, head_dim, device=device)
        slots = torch.randperm(num_blocks * _BLOCK_SIZE, device=device)[:num_tokens]
        cos_sin = torch.cat([angles.cos(), angles.sin()], dim=1)
        return [q, k, v, cos_sin, positions, *cache.to(dtype), slots]

    def run(q: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        rope_and_store_kv(q, *others)
        return q, others[4], others[5]

    def reference(q: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        k, v, cos_sin, positions, k_cache, v_cache, slots = others
        pages = KvBlocks(k_cache, v_cache)
        rope_and_store_kv_reference(q, k, v, cos_sin, positions, pages, slots)
        return q, k_cache, v_cache

    return KernelCase(
        "rope_and_store_kv",
        f"{num_tokens} tokens, heads {num_heads}/{num_kv_heads} x {head_dim}",
        make,
        at_once(run),
        reference,
        # q, k and v are read and written, the angles read.
        lambda inputs: Cost(2 * all_bytes(inputs[:3]).num_bytes + inputs[3].nbytes),
    )


def linear_case(model: ModelShape, num_tokens: int) -> KernelCase:
    """cuBLAS's product, which the others stand beside."""
    width, hidden = 2 * model.intermediate_size, model.hidden_size

    def make(device: str, dtype: torch.dtype) -> Inputs:
        weight = torch.randn(width, hidden, device=device, dtype=dtype) / math.sqrt(hidden)
        return [torch.randn(num_tokens, hidden, device=device, dtype=dtype), weight]

    def cost(inputs: Inputs) -> Cost:
        written = num_tokens * width * inputs[0].itemsize
        return Cost(all_bytes(inputs).num_bytes + written, 2 * num_tokens * width * hidden)

    return KernelCase(
        "linear (cuBLAS)",
        f"{num_tokens} x {hidden} to {width}",
        make,
        at_once(torch.nn.functional.linear),
        torch.nn.functional.linear,
        cost,
    )


def sampling_case(vocab_size: int, num_rows: int) -> KernelCase:
    """Rows that are greedy, and such that draw with top-k, top-p and min-p."""

    def make(device: str, _: torch.dtype) -> Inputs:
        kind = torch.arange(num_rows, device=device) % 4
        return [
            3 * torch.randn(num_rows, vocab_size, device=device),
            torch.where(kind == 0, 0.0, 0.8),
            torch.where(kind == 1, 50, 0).int(),
            torch.where(kind == 2, 0.9, 1.0),
            torch.where(kind == 3, 0.05, 0.0),
            torch.randint(2**62, (num_rows,), device=device),
            torch.arange(num_rows, device=device),
        ]

    return KernelCase(
        "sampling",
        f"{num_rows} x {vocab_size}",
        make,
        at_once(sample),
        sample_reference,
        lambda inputs: Cost(inputs[0].nbytes),
        dtypes=(torch.float32,),
        # A draw may hang on the last bit of a logarithm, rarely.
        tolerance=1,
    )


def copy_case(model: ModelShape, num_copies: int) -> KernelCase:
    def make(device: str, dtype: torch.dtype) -> Inputs:
        block = (_BLOCK_SIZE, model.num_kv_heads, model.head_dim)
        cache = torch.randn(2 * model.num_layers, 2 * num_copies, *block, device=device)
        ids = torch.randperm(2 * num_copies, device=device)
        return [cache.to(dtype), *ids.chunk(2)]

    def run(kv_cache: Tensor, source_ids: Tensor, target_ids: Tensor) -> Tensor:
        copy_blocks(kv_cache, source_ids, target_ids)
        return kv_cache

    def reference(kv_cache: Tensor, source_ids: Tensor, target_ids: Tensor) -> Tensor:
        copy_blocks_reference(kv_cache, source_ids, target_ids)
        return kv_cache

    return KernelCase(
        "copy_blocks",
        f"{num_copies} blocks of {model.num_layers} layers",
        make,
        at_once(run),
        reference,
        # Half of the cache is read, the other half written.
        lambda inputs: Cost(inputs[0].nbytes),
    )
