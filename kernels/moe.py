"""A mixture of experts: each token's feed-forward layers are those of the experts it was routed to.

    out[t] = Σ_j weights[t, j] · down[e] · (activation(gate[e] · x[t]) · up[e] · x[t])
             with e = expert_ids[t, j]

Sources: Outrageously Large Neural Networks (Shazeer et al., 2017); computing on tokens sorted by
expert, without padding them, is MegaBlocks' (Gale et al., 2022).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .gpu.interpreter import interpreting
from .quantize_rows import quantize_rows_reference


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """The weights of a layer's experts, all contiguous and of one dtype.

    Attributes:
        gate_up: [num_experts, 2 * dim, hidden_size], the rows of the gate before those of up.
        down: [num_experts, hidden_size, dim].
        gate_up_scales, down_scales: float32 [num_experts, 2 * dim] and [num_experts, hidden_size],
            what each output is multiplied by if the weights are float8_e4m3fn; else None.
        activation: of the gate; "gelu" as its tanh formula has it.
    """

    gate_up: Tensor
    down: Tensor
    gate_up_scales: Tensor | None = None
    down_scales: Tensor | None = None
    activation: Literal["silu", "gelu"] = "silu"


def moe(x: Tensor, expert_ids: Tensor, weights: Tensor, experts: Experts) -> Tensor:
    """Apply to each token the experts it was routed to.

    Args:
        x: [num_tokens, hidden_size], contiguous, dtype of the experts; any if theirs is
            float8_e4m3fn. What is multiplied is then quantized first, each row with its own scale.
        expert_ids: int32 [num_tokens, top_k], as route() has them; -1 for none, such as an expert
            of another device, or padding.
        weights: float32 [num_tokens, top_k].
    Returns:
        [num_tokens, hidden_size], dtype of x. Products and sums are float32; what an expert keeps
        between its two layers, and its output, are rounded to the dtype of x.
    """
    if x.is_cuda or interpreting():
        # Triton is there where a device is.
        from .gpu import moe as gpu

        return gpu.moe(x, expert_ids, weights, experts)
    return moe_reference(x, expert_ids, weights, experts)


def moe_reference(x: Tensor, expert_ids: Tensor, weights: Tensor, experts: Experts) -> Tensor:
    out = torch.zeros(x.shape, device=x.device)
    for expert in range(len(experts.gate_up)):
        tokens, places = (expert_ids == expert).nonzero(as_tuple=True)
        gate_up = _linear(x[tokens], experts.gate_up, experts.gate_up_scales, expert)
        gate, up = gate_up.chunk(2, dim=-1)
        is_silu = experts.activation == "silu"
        activated = F.silu(gate) if is_silu else F.gelu(gate, approximate="tanh")
        hidden = (activated * up).to(x.dtype)
        result = _linear(hidden, experts.down, experts.down_scales, expert).to(x.dtype)
        out.index_add_(0, tokens, weights[tokens, places, None] * result.float())
    return out.to(x.dtype)


def _linear(x: Tensor, weight: Tensor, scales: Tensor | None, expert: int) -> Tensor:
    if scales is None:
        return x.float() @ weight[expert].float().T
    values, x_scales = quantize_rows_reference(x, weight.dtype)
    return values.float() @ weight[expert].float().T * (x_scales[:, None] * scales[expert])
