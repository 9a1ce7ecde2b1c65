"""Products with the weights of a model on a GPU: each kind is the product that it says it is."""

import torch
from torch import Tensor

from octavo.kernels.device_linear import DeviceWeight, device_linear, new_arrivals
from octavo.kernels.int4_weight import pack_int4_weight
from octavo.kernels.linear import linear
from octavo.kernels.quantize_rows import quantize_rows
from octavo.kernels.scaled_linear import ScaledWeight
from octavo.kernels.workspace import Workspace
from tests.kernels.closeness import assert_close

NUM_TOKENS, IN_FEATURES, OUT_FEATURES = 5, 2048, 72


def activations(device: str) -> Tensor:
    return torch.randn(NUM_TOKENS, IN_FEATURES).to(device, torch.float16)


def test_a_matrix_in_floating_point_answers_in_its_type_or_unrounded(device: str) -> None:
    x = activations(device)
    matrix = torch.randn(OUT_FEATURES, IN_FEATURES).to(device, torch.float16)
    expected = x.double() @ matrix.double().T
    for out_dtype in (torch.float16, torch.float32):
        out = linear(x, DeviceWeight(matrix, out_dtype))
        assert out.dtype == out_dtype
        # Inputs are longer than those of which float32 sums have such errors.
        assert_close(out, expected, slack=8)


def test_a_product_goes_where_there_is_room_for_it(device: str) -> None:
    x = activations(device)
    matrix = torch.randn(OUT_FEATURES, IN_FEATURES).to(device, torch.float16)
    workspace = Workspace(x.device)
    for out_dtype in (torch.float32, torch.float16):
        weight = DeviceWeight(matrix, out_dtype)
        first, second = (device_linear(x, weight, workspace) for _ in range(2))
        assert second.data_ptr() == first.data_ptr()
        assert_close(second, device_linear(x, weight), slack=8)
    eight_bits = ScaledWeight(*quantize_rows(matrix.float(), torch.int8))
    weight = DeviceWeight(eight_bits, torch.float16, new_arrivals(x.device))
    assert torch.equal(device_linear(x, weight, workspace), device_linear(x, weight))


def test_a_weight_of_8_bits_takes_rows_of_8_bits_or_makes_them_so(device: str) -> None:
    x = activations(device)
    for dtype in (torch.float8_e4m3fn, torch.int8):
        rows = torch.randn(OUT_FEATURES, IN_FEATURES).to(device)
        matrix = ScaledWeight(*quantize_rows(rows, dtype))
        weight = DeviceWeight(matrix, torch.float16, new_arrivals(x.device))
        assert weight.quantized_dtype == dtype
        quantized = quantize_rows(x, dtype)
        out = device_linear(quantized, weight)
        assert torch.equal(device_linear(x, weight), out)
        exact = quantized.values.double() * quantized.scales.double()[:, None]
        assert_close(out, exact @ matrix.dequantized().double().T, slack=2)


def test_a_weight_of_4_bits_takes_rows_as_they_are(device: str) -> None:
    x = activations(device)
    values = torch.randint(16, (OUT_FEATURES, IN_FEATURES), dtype=torch.uint8)
    scales = torch.rand(IN_FEATURES // 128, OUT_FEATURES).div_(100).half()
    zero_points = torch.randint(16, scales.shape)
    packed = pack_int4_weight(values.to(device), scales.to(device), zero_points.to(device), 128)
    weight = DeviceWeight(packed, torch.float16, new_arrivals(x.device))
    assert weight.quantized_dtype is None
    groups = torch.arange(IN_FEATURES) // 128
    exact = (values.double() - zero_points[groups].T) * scales[groups].T.double()
    assert_close(device_linear(x, weight), x.double() @ exact.to(device).T, slack=2)


def test_products_leave_no_arrivals(device: str) -> None:
    x, arrivals = activations(device), new_arrivals(torch.device(device))
    assert arrivals is not None
    rows = torch.randn(OUT_FEATURES, IN_FEATURES).to(device)
    matrix = ScaledWeight(*quantize_rows(rows, torch.int8))
    weight = DeviceWeight(matrix, torch.float16, arrivals)
    first = device_linear(x, weight)
    assert torch.equal(device_linear(x, weight), first)
    assert not arrivals.any()
