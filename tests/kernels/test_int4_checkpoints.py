"""4-bit weights of AWQ and GPTQ checkpoints: packed as those projects say, read back exactly."""

import pytest
import torch
from torch import Tensor

from octavo.kernels.int4_checkpoints import read_awq, read_gptq, read_packed
from octavo.kernels.int4_weight import Int4Weight, pack_int4_weight, stack_int4_weights
from octavo.kernels.w4a16_linear import w4a16_linear
from tests.kernels.int4_packing import AWQ_ORDER, pack

OUT_FEATURES, IN_FEATURES = 24, 416
GROUP_SIZES = pytest.mark.parametrize("group_size", [32, 64, 128, -1])


def random_layer(group_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return numbers, scales, zero points and each input's group."""
    values = torch.randint(16, (OUT_FEATURES, IN_FEATURES))
    groups = torch.zeros(IN_FEATURES, dtype=torch.int64)
    if group_size != -1:
        groups = torch.arange(IN_FEATURES) // group_size
    num_groups = int(groups[-1]) + 1
    scales = (torch.rand(num_groups, OUT_FEATURES) + 0.01).half()
    return values, scales, torch.randint(16, (num_groups, OUT_FEATURES)), groups


def exact(values: Tensor, scales: Tensor, zero_points: Tensor, groups: Tensor) -> Tensor:
    return (values - zero_points[groups].T) * scales[groups].T.float()


@GROUP_SIZES
def test_reads_awq(group_size: int) -> None:
    values, scales, zero_points, groups = random_layer(group_size)
    qweight, qzeros = pack(values.T, AWQ_ORDER), pack(zero_points, AWQ_ORDER)
    weight = read_awq(qweight, qzeros, scales, group_size)
    assert torch.equal(weight.dequantized(), exact(values, scales, zero_points, groups))


@GROUP_SIZES
@pytest.mark.parametrize("is_in_order", [True, False])
def test_reads_gptq(group_size: int, is_in_order: bool) -> None:
    values, scales, zero_points, groups = random_layer(group_size)
    if not is_in_order:
        groups = groups[torch.randperm(IN_FEATURES)]
    qweight, qzeros = pack(values).T, pack(zero_points)
    expected = exact(values, scales, zero_points, groups)
    g_idx = groups.to(torch.int32)
    weight = read_gptq(qweight, qzeros, scales, g_idx, group_size, "gptq_v2")
    assert torch.equal(weight.dequantized(), expected)
    assert (weight.permutation is None) == (is_in_order or group_size == -1)
    # As GPTQModel makes the older format: of all eight numbers at once.
    older = (qzeros.long() - 0x11111111).to(torch.int32)
    weight = read_gptq(qweight, older, scales, g_idx, group_size)
    assert torch.equal(weight.dequantized(), expected)


@GROUP_SIZES
def test_reads_what_compressed_tensors_packs(group_size: int) -> None:
    values, scales, zero_points, groups = random_layer(group_size)
    weight = read_packed(pack(values), scales.T, group_size)
    expected = exact(values, scales, torch.full_like(zero_points, 8), groups)
    assert torch.equal(weight.dequantized(), expected)
    with pytest.raises(ValueError, match="do not fit a weight of 24 outputs"):
        read_packed(pack(values), scales.T[1:], group_size)


def test_zero_points_of_symmetric_gptq_are_8() -> None:
    values, scales, zero_points, groups = random_layer(64)
    qzeros = torch.full((len(scales), OUT_FEATURES // 8), 0x77777777, dtype=torch.int32)
    weight = read_gptq(pack(values).T, qzeros, scales, None, 64)
    expected = exact(values, scales, torch.full_like(zero_points, 8), groups)
    assert torch.equal(weight.dequantized(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scales_of_either_dtype_are_kept_exactly(dtype: torch.dtype) -> None:
    values, scales, zero_points, groups = random_layer(32)
    scales = (scales.double() * 1e-3).to(dtype)
    weight = pack_int4_weight(values.to(torch.uint8), scales, zero_points, 32)
    assert torch.equal(weight.dequantized(), exact(values, scales, zero_points, groups))


def test_multiplies_without_a_gpu() -> None:
    values, scales, zero_points, groups = random_layer(64)
    order = torch.randperm(IN_FEATURES)
    weight = read_gptq(
        pack(values).T, pack(zero_points), scales, groups[order].int(), 64, "gptq_v2"
    )
    x, bias = torch.randn(3, IN_FEATURES), torch.randn(OUT_FEATURES)
    expected = x @ exact(values, scales, zero_points, groups[order]).T + bias
    torch.testing.assert_close(w4a16_linear(x, weight, bias), expected)


@pytest.mark.parametrize("group_size", [16, 96, 0, -2])
def test_other_groups_are_refused(group_size: int) -> None:
    values = torch.zeros(8, 192, dtype=torch.uint8)
    scales = zero_points = torch.zeros(12, 8)
    with pytest.raises(ValueError, match=f"in groups of {group_size} inputs are not supported"):
        pack_int4_weight(values, scales, zero_points, group_size)


def test_what_does_not_fit_together_is_refused() -> None:
    values, scales, zero_points, groups = random_layer(64)

    def read(scales: Tensor, g_idx: Tensor) -> Int4Weight:
        return read_gptq(pack(values).T, pack(zero_points), scales, g_idx, 64)

    with pytest.raises(ValueError, match="do not fit a weight of 7 groups and 24 outputs"):
        read(scales[1:], groups)
    with pytest.raises(ValueError, match="g_idx does not say groups of 64 inputs each"):
        read(scales, torch.zeros_like(groups))
    with pytest.raises(ValueError, match="g_idx does not say groups of 64 inputs each"):
        read(scales, groups[:64])


def test_layers_of_the_same_inputs_become_one() -> None:
    order = torch.randperm(IN_FEATURES)
    parts = []
    for _ in range(3):
        values, scales, zero_points, groups = random_layer(64)
        g_idx = groups[order].int()
        parts.append(read_gptq(pack(values).T, pack(zero_points), scales, g_idx, 64, "gptq_v2"))
    expected = torch.cat([part.dequantized() for part in parts])
    assert torch.equal(stack_int4_weights(parts).dequantized(), expected)
    other = read_gptq(pack(values).T, pack(zero_points), scales, None, 64)
    with pytest.raises(ValueError, match="different orders"):
        stack_int4_weights([*parts, other])
    with pytest.raises(ValueError, match="different groups"):
        stack_int4_weights([other, read_gptq(pack(values).T, *whole_layer(), None, -1)])


def whole_layer() -> tuple[Tensor, Tensor]:
    """Return zero points and scales of one group."""
    _, scales, zero_points, _ = random_layer(-1)
    return pack(zero_points), scales
