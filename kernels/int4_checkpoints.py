"""Reads 4-bit weights as AWQ, GPTQ and compressed-tensors write them.

All pack eight numbers into an int32, four bits each, from the lowest up; AWQ neighbouring outputs
in the order 0 2 4 6 1 3 5 7, the others neighbouring inputs, and outputs of the zero points.

| tensor | AWQ | GPTQ |
|---|---|---|
| qweight | [in_features, out_features / 8] | [in_features / 8, out_features] |
| qzeros | [num_groups, out_features / 8] | [num_groups, out_features / 8] |
| scales | [num_groups, out_features] | [num_groups, out_features] |
| g_idx | | [in_features], the group of each input |

Of compressed-tensors ("pack-quantized", symmetric) weight_packed is GPTQ's qweight transposed, and
weight_scale its scales; all zero points are 8.

Sources: AWQ (Lin et al., 2023) and AutoAWQ (https://github.com/casper-hansen/AutoAWQ); GPTQ
(Frantar et al., 2022) and GPTQModel (https://github.com/ModelCloud/GPTQModel); compressed-tensors
(https://github.com/vllm-project/compressed-tensors).
"""

from typing import Literal

import torch
from torch import Tensor

from .int4_weight import Int4Weight, pack_int4_weight

# Where AWQ has each of eight neighbouring outputs.
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)

# One in each of eight numbers.
_ONES = 0x11111111


def read_awq(qweight: Tensor, qzeros: Tensor, scales: Tensor, group_size: int) -> Int4Weight:
    """Repack a layer of an AWQ checkpoint (its "gemm" version).

    Args:
        group_size: as the checkpoint's configuration has it; -1 is all inputs.
    Raises:
        ValueError: the shapes do not fit together, or the size of the groups is not supported.
    """
    in_features, out_features = qweight.shape[0], 8 * qweight.shape[1]
    _check(qzeros, scales, _num_groups(in_features, group_size), out_features)
    values, zero_points = (
        _unpacked(each)[..., _AWQ_PLACES].flatten(1) for each in (qweight, qzeros)
    )
    return pack_int4_weight(values.T, scales, zero_points, group_size)


def read_gptq(
    qweight: Tensor,
    qzeros: Tensor,
    scales: Tensor,
    g_idx: Tensor | None,
    group_size: int,
    checkpoint_format: Literal["gptq", "gptq_v2"] = "gptq",
) -> Int4Weight:
    """Repack a layer of a GPTQ checkpoint.

    Args:
        g_idx: with "desc_act" the groups of neighbouring inputs differ: the weight then has a
            permutation that puts those of a group together.
        group_size: as the checkpoint's configuration has it; -1 is all inputs.
        checkpoint_format: "gptq" has zero points less one, borrowing from the number above.
    Raises:
        ValueError: the shapes do not fit together, the groups are not all of one size, or that is
            not supported.
    """
    in_features, out_features = 8 * qweight.shape[0], qweight.shape[1]
    _check(qzeros, scales, _num_groups(in_features, group_size), out_features)
    if checkpoint_format == "gptq":
        qzeros = qzeros + _ONES
    values = _unpacked(qweight.T).flatten(1)
    permutation = None if g_idx is None else _permutation(g_idx, in_features, group_size)
    if permutation is not None:
        values = values[:, permutation]
    return pack_int4_weight(values, scales, _unpacked(qzeros).flatten(1), group_size, permutation)


def read_packed(weight_packed: Tensor, weight_scale: Tensor, group_size: int) -> Int4Weight:
    """Repack a layer of a compressed-tensors checkpoint.

    Args:
        group_size: as the checkpoint's configuration has it; -1 is all inputs.
    Raises:
        ValueError: the shapes do not fit together, or the size of the groups is not supported.
    """
    values, scales = _unpacked(weight_packed).flatten(1), weight_scale.T.contiguous()
    num_groups = _num_groups(values.shape[1], group_size)
    if scales.shape != (num_groups, len(values)):
        raise ValueError(
            f"scales of {list(weight_scale.shape)} do not fit a weight of {len(values)} outputs"
            f" and {num_groups} groups"
        )
    return pack_int4_weight(values, scales, torch.full_like(scales, 8), group_size)


def _unpacked(packed: Tensor) -> Tensor:
    """Return the numbers of int32 [rows, columns], from the lowest up: uint8 [rows, columns, 8]."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=packed.device)
    return (packed[..., None] >> shifts & 15).to(torch.uint8)


def _permutation(g_idx: Tensor, in_features: int, group_size: int) -> Tensor | None:
    """Return the inputs in the order of their groups; None if they are in it."""
    places = torch.arange(in_features, device=g_idx.device)
    groups = torch.zeros_like(places) if group_size == -1 else places // group_size
    in_order, permutation = g_idx.long().sort(stable=True)
    if not torch.equal(in_order, groups):
        raise ValueError(f"g_idx does not say groups of {group_size} inputs each")
    return None if torch.equal(permutation, places) else permutation


def _num_groups(in_features: int, group_size: int) -> int:
    return 1 if group_size == -1 else -(-in_features // group_size)


def _check(qzeros: Tensor, scales: Tensor, num_groups: int, out_features: int) -> None:
    expected = (num_groups, out_features)
    if scales.shape != expected or (len(qzeros), 8 * qzeros.shape[1]) != expected:
        raise ValueError(
            f"scales of {list(scales.shape)} and packed zero points of {list(qzeros.shape)} do not "
            f"fit a weight of {num_groups} groups and {out_features} outputs"
        )
