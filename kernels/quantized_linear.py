"""Linear layer with a quantized weight: activations become bytes, too, so that products are exact.

    out[t, i] = Σ over groups g of x_scales[t, g] * (scales[i, g] * Σ values[i, k] * x_values[t, k]
                                                     + minimums[i, g] * Σ x_values[t, k])

Inside a group sums are of whole numbers. Over the groups they are added in float32, in order.

Source: ggml's products of quantized blocks (https://github.com/ggml-org/ggml).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .cpu import library
from .linear import Layout, PackedWeight, paired
from .quantized_weight import GROUP_SIZE, QuantizedWeight

# Neighbours in a row of activations that share a scale, where the weight has no groups of its own.
# One scale for all of them would cost SmolLM2-135M 3.3 % of perplexity, not 0.5 % (both simulated).
X_GROUP_SIZE = 64

_LARGEST = 127
_SMALLEST = 1e-30


def pack_quantized_weight(
    weight: QuantizedWeight,
    dtype: torch.dtype,
    out_dtype: torch.dtype | None = None,
    *,
    is_gated: bool = False,
) -> PackedWeight:
    """Repack a weight for `linear`; without C++ kernels, as what its numbers stand for.

    Args:
        dtype: of the activations, float32 or bfloat16.
        out_dtype: what `linear` answers in: `dtype` unless told otherwise.
        is_gated: as `pack_weight` has it.
    """
    out_dtype = out_dtype or dtype
    num_rows, in_features = weight.values.shape
    if library.load_for(dtype):
        layout, data = weight.layout, _panels(weight.with_rows(paired) if is_gated else weight)
    else:
        layout, data = Layout.PLAIN, weight.dequantized().to(out_dtype)
    out_features = num_rows // 2 if is_gated else num_rows
    return PackedWeight(data, layout, out_features, in_features, dtype, out_dtype, is_gated)


def quantized_linear_reference(
    x: Tensor, weight: QuantizedWeight, out_dtype: torch.dtype
) -> Tensor:
    """The same, in double precision: [num_rows, out_features]."""
    values, scales = quantize_rows_reference(x, x_group_size(weight.layout))
    rounded = (values.double() * scales[:, :, None].double()).flatten(1)[:, : x.shape[1]]
    return (rounded @ weight.dequantized().double().T).to(out_dtype)


def quantize_rows_reference(x: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Make bytes of activations, each group's largest number 127 or -127.

    Returns:
        values: whole numbers in float32, [num_rows, num_groups, group_size].
        scales: float32 [num_rows, num_groups]; NaN where a number of the group is not finite.
    """
    padded = F.pad(x.float(), (0, -x.shape[1] % group_size))
    groups = padded.view(len(x), padded.shape[1] // group_size, group_size)
    ranges = groups.abs().amax(dim=2, keepdim=True)
    is_zero = ranges < _SMALLEST
    values = (groups * torch.where(is_zero, 0.0, _LARGEST / ranges)).round()
    scales = torch.where(is_zero, 0.0, ranges * (1 / _LARGEST)).squeeze(2)
    return values, scales + (groups * 0).sum(dim=2)


def packed_bytes(
    layout: Layout,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    out_dtype: torch.dtype | None = None,
) -> int:
    """Return the size of what `pack_quantized_weight` makes, but for what fills its last panel.

    Args:
        shape: [out_features, in_features].
        dtype, out_dtype: as `pack_quantized_weight` has them.
    """
    out_features, in_features = shape
    if not library.load_for(dtype):
        return out_features * in_features * (out_dtype or dtype).itemsize
    group_size = x_group_size(layout)
    num_groups = -(-in_features // group_size)
    match layout:
        case Layout.INT8:
            return out_features * (num_groups * group_size + torch.float32.itemsize)
        case Layout.Q8:
            return out_features * num_groups * (group_size + torch.float16.itemsize)
        case _:
            return out_features * num_groups * (group_size // 2 + 2 * torch.float16.itemsize)


def x_group_size(layout: Layout) -> int:
    return X_GROUP_SIZE if layout is Layout.INT8 else GROUP_SIZE


def _panels(weight: QuantizedWeight) -> Tensor:
    """[num_panels, bytes of a panel] as cpu/quantized_weight.h has them."""
    cpu = library.load()
    assert cpu is not None
    width, group_size = cpu.panel_width(), x_group_size(weight.layout)
    extra = -len(weight.values) % width
    values = F.pad(weight.values, (0, -weight.values.shape[1] % group_size, 0, extra))
    num_panels, num_groups = len(values) // width, values.shape[1] // group_size
    if weight.layout is Layout.Q4:
        lower, upper = values.view(-1, 2, group_size // 2).unbind(1)
        numbers = lower | upper << 4
    else:
        numbers = values.view(torch.uint8) ^ 0x80  # As unsigned bytes, 128 higher.

    def by_panel(each: Tensor) -> Tensor:
        """[features, n] → the bytes of [num_panels, n, width]."""
        rows = each.reshape(num_panels, width, -1)
        return rows.transpose(1, 2).contiguous().view(torch.uint8).view(num_panels, -1)

    # Four neighbours move as one number.
    units = by_panel(numbers.view(-1).view(torch.int32))
    scales = [
        by_panel(F.pad(each, (0, 0, 0, extra)))
        for each in (weight.scales, weight.minimums)
        if each is not None
    ]
    if weight.layout is Layout.INT8:
        return torch.cat((units, *scales), dim=1)
    parts = [part.view(num_panels, num_groups, -1) for part in (units, *scales)]
    return torch.cat(parts, dim=2).view(num_panels, -1)
