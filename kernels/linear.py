"""Linear layer: activations times a weight that was repacked once, when the model was loaded.

    out = x · weightᵀ

What a decoder does with the result is part of the product on a CPU: it is added to the residual
stream, or goes through SiLU. Weights on a GPU are device_linear.py's.
"""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from .cpu import library
from .device_linear import DeviceWeight, device_linear
from .silu_and_mul import silu_and_mul
from .workspace import Workspace


class Layout(IntEnum):
    """How a packed weight lies in memory, and so which code multiplies by it.

    Those of our C++ kernels have the numbers of ops.h; what INT8, Q8 and Q4 are stands in
    quantized_weight.py.
    """

    PANELS = 0
    INT8 = 1
    Q8 = 2
    Q4 = 3
    ONEDNN = 4
    PLAIN = 5  # As it was, in the dtype of the output.

    @property
    def is_native(self) -> bool:
        return self not in (Layout.ONEDNN, Layout.PLAIN)


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the layout of the fastest code that this machine has for it.

    Attributes:
        out_features: what `linear` answers in each row: of a gated weight half as many as it has.
        is_gated: whether that is silu(gate) · up, see silu_and_mul.py.
    """

    data: Tensor
    layout: Layout
    out_features: int
    in_features: int
    in_dtype: torch.dtype
    out_dtype: torch.dtype
    is_gated: bool = False

    @functools.cached_property
    def descriptor(self) -> library.PackedWeight:
        """The weight as the C++ kernels take it."""
        return library.PackedWeight(
            data=self.data.data_ptr(),
            out_features=self.out_features,
            in_features=self.in_features,
            dtype=library.DTYPES[self.in_dtype],
            out_dtype=library.DTYPES[self.out_dtype],
            layout=self.layout,
            is_gated=self.is_gated,
        )


def pack_weight(
    weight: Tensor, out_dtype: torch.dtype | None = None, *, is_gated: bool = False
) -> PackedWeight:
    """Repack a weight for `linear`.

    Args:
        weight: [out_features, in_features], float32 or bfloat16.
        out_dtype: what `linear` answers in: the dtype of the weight unless told otherwise.
            float32 for a bfloat16 weight gives the sums unrounded, as sampling wants them.
        is_gated: whether the first half of the rows is the gate of the second: `linear` then
            answers silu(x · gateᵀ) · (x · upᵀ).
    """
    out_dtype = out_dtype or weight.dtype
    layout = _best_layout(weight, out_dtype)
    match layout:
        case Layout.PANELS:
            data = _panels(paired(weight) if is_gated else weight)
        case Layout.ONEDNN:
            data = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        case _:
            data = weight.to(out_dtype)
    num_rows, in_features = weight.shape
    out_features = num_rows // 2 if is_gated else num_rows
    return PackedWeight(data, layout, out_features, in_features, weight.dtype, out_dtype, is_gated)


def paired(rows: Tensor) -> Tensor:
    """Reorder the rows of a gated weight for panels: each gets half gate, half up.

    [2 * n, ...] → [num_panels * width of a panel, ...], rows of zeros where halves end.
    """
    half = _library().panel_width() // 2
    halves = F.pad(rows.view(2, len(rows) // 2, -1), (0, 0, 0, -(len(rows) // 2) % half))
    return halves.view(2, -1, half, halves.shape[2]).transpose(0, 1).reshape(-1, *rows.shape[1:])


def linear(
    x: Tensor, packed: PackedWeight | DeviceWeight, workspace: Workspace | None = None
) -> Tensor:
    """Multiply the rows of `x` by a packed weight.

    The products are summed in float32. With our own kernels, a row of the result has the same bits
    whatever the number of rows or threads.

    Args:
        x: [num_rows, in_features], contiguous, of packed.in_dtype.
        workspace: where a GPU, and the CPU's own kernels, put the result; without one it has memory
            of its own.
    Returns:
        [num_rows, out_features], contiguous, in packed.out_dtype.
    """
    if isinstance(packed, DeviceWeight):
        return device_linear(x, packed, workspace)
    if packed.layout.is_native:
        out = (workspace or Workspace()).take((len(x), packed.out_features), packed.out_dtype)
        _run(_library().linear, x, packed, out)
        return out
    out = _torch_product(x, packed)
    return silu_and_mul(out) if packed.is_gated else out


def add_linear(residual: Tensor, x: Tensor, packed: PackedWeight) -> None:
    """Add `linear(x, packed)` to `residual`, [num_rows, out_features] in packed.out_dtype."""
    if packed.layout.is_native:
        _run(_library().add_linear, x, packed, residual)
    else:
        residual.add_(linear(x, packed))


def linear_reference(x: Tensor, weight: Tensor, out_dtype: torch.dtype) -> Tensor:
    return F.linear(x.float(), weight.float()).to(out_dtype)


def _best_layout(weight: Tensor, out_dtype: torch.dtype) -> Layout:
    """Measured on two Zen 4 cores, 2026-11: on bfloat16 panels take 0.4 to 1.0 of oneDNN's time.

    Where the processor lacks AVX512-BF16, or has the tile instructions (AMX) that only oneDNN uses,
    oneDNN is the faster one; it cannot keep float32 sums.
    """
    cpu = library.load_for(weight.dtype)
    if weight.dtype == torch.float32:
        return Layout.PANELS if cpu else Layout.PLAIN
    # A panel of bfloat16 holds the weights in pairs.
    if cpu and weight.shape[1] % 2 == 0 and (out_dtype == torch.float32 or cpu.prefers_panels()):
        return Layout.PANELS
    if weight.dtype == out_dtype == torch.bfloat16 and _has_onednn():
        return Layout.ONEDNN
    return Layout.PLAIN


def _panels(weight: Tensor) -> Tensor:
    """[num_panels, units of k, features of a panel, elements of a unit]; see cpu/linear.cpp."""
    out_features, in_features = weight.shape
    width, per_unit = _library().panel_width(), 4 // weight.element_size()
    weight = weight.contiguous()
    extra = -out_features % width
    # A view as other numbers has to begin at a whole one.
    if extra or weight.storage_offset() % per_unit:
        weight = F.pad(weight, (0, 0, 0, extra))
    # Units move as one number of 4 bytes: a fifth of the time of pairs of bfloat16.
    units = weight.view(torch.int32).view(-1, width, in_features // per_unit)
    packed = units.transpose(1, 2).contiguous().view(weight.dtype)
    return packed.view(-1, in_features // per_unit, width, per_unit)


def _torch_product(x: Tensor, packed: PackedWeight) -> Tensor:
    if packed.layout is Layout.PLAIN:
        return F.linear(x.to(packed.out_dtype), packed.data)
    out = torch.ops.mkldnn._linear_pointwise(x, packed.data, None, "none", [], "")
    assert isinstance(out, Tensor)
    return out


def _run(product: Callable[..., None], x: Tensor, packed: PackedWeight, out: Tensor) -> None:
    assert x.is_contiguous() and x.dtype == packed.in_dtype, x.dtype
    assert x.dim() == 2 and x.shape[1] == packed.in_features, x.shape
    assert out.is_contiguous() and out.dtype == packed.out_dtype, out.dtype
    assert out.shape == (len(x), packed.out_features), out.shape
    product(packed.descriptor, x.data_ptr(), out.data_ptr(), len(x))


def _library() -> ctypes.CDLL:
    cpu = library.load()
    assert cpu is not None
    return cpu


@functools.cache
def _has_onednn() -> bool:
    """Whether torch's private oneDNN operators exist here and accept bfloat16."""
    weight = torch.ones(16, 16, dtype=torch.bfloat16)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        torch.ops.mkldnn._linear_pointwise(weight, packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return True
