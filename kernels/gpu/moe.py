"""A mixture of experts on the GPU: sort by expert, two linear layers, a weighted sum.

Four launches, six with weights of 8 bits, and nothing that the host has to know. Sums are in one
order, whatever the batch.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from octavo.kernels.moe import Experts

from .aot import Specialization
from .expert_order import order_by_expert
from .grouped_linear import LAUNCHES, GroupedShape, Scaled, down_linear, gated_linear
from .quantize_rows import quantize_rows

# Of the weighted sum: 8 numbers a thread, a load of 16 bytes of each expert. Not yet measured.
_BLOCK = 1024
_NUM_WARPS = 4


def moe(x: Tensor, expert_ids: Tensor, weights: Tensor, experts: Experts) -> Tensor:
    """See ../moe.py."""
    num_tokens, hidden_size = x.shape
    num_experts = len(experts.gate_up)
    assert x.is_contiguous() and expert_ids.is_contiguous() and weights.is_contiguous()
    is_scaled = experts.gate_up_scales is not None
    assert experts.gate_up.dtype == experts.down.dtype
    assert is_scaled or x.dtype == experts.gate_up.dtype
    out = torch.empty_like(x)
    if num_tokens == 0:
        return out
    itemsize, dim = experts.gate_up.itemsize, experts.down.shape[2]
    shape = GroupedShape.of(itemsize, expert_ids.numel(), num_experts, hidden_size, dim)
    launch = LAUNCHES.choose(shape, x.device)
    order = order_by_expert(expert_ids, num_experts, launch.block_m)
    gate_up = Scaled(experts.gate_up, experts.gate_up_scales)
    down = Scaled(experts.down, experts.down_scales)
    hidden = gated_linear(
        _as_input(x, gate_up), gate_up, order, experts.activation, launch, x.dtype
    )
    results = down_linear(_as_input(hidden, down), down, order, launch, x.dtype)
    _sum_kernel[num_tokens, triton.cdiv(hidden_size, _BLOCK)](
        results_ptr=results,
        expert_ids_ptr=expert_ids,
        weights_ptr=weights,
        out_ptr=out,
        hidden_size=hidden_size,
        TOP_K=expert_ids.shape[1],
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )
    return out


def _as_input(x: Tensor, weight: Scaled) -> Scaled:
    """Quantize x, each row, if the weight is; rows that nobody wrote stay without meaning."""
    return (
        Scaled(x, None) if weight.scales is None else Scaled(*quantize_rows(x, weight.values.dtype))
    )


def aot_specializations() -> Iterator[Specialization]:
    for dtype in ("bf16", "fp16"):
        signature = {"results_ptr": f"*{dtype}", "out_ptr": f"*{dtype}", "hidden_size": "i32:16"}
        signature |= {"expert_ids_ptr": "*i32", "weights_ptr": "*fp32"}
        for top_k in (2, 8):
            constants = {"TOP_K": top_k, "BLOCK": _BLOCK}
            yield Specialization(_sum_kernel, signature, constants, _NUM_WARPS, num_stages=3)


@triton.jit
def _sum_kernel(
    results_ptr,
    expert_ids_ptr,
    weights_ptr,
    out_ptr,
    hidden_size,
    TOP_K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_inside = columns < hidden_size
    total = tl.zeros((BLOCK,), tl.float32)
    for rank in tl.static_range(TOP_K):
        pair = token * TOP_K + rank
        # What has no expert has no result either.
        has_result = is_inside & (tl.load(expert_ids_ptr + pair) >= 0)
        result = tl.load(results_ptr + pair * hidden_size + columns, mask=has_result, other=0.0)
        total += tl.load(weights_ptr + pair) * result.to(tl.float32)
    out = total.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + token * hidden_size + columns, out, mask=is_inside)
