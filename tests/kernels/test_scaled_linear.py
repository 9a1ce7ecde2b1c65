"""Products of 8-bit numbers on a machine without a GPU: the reference, which says what they are."""

import pytest
import torch

from octavo.kernels.scaled_linear import ScaledWeight, scaled_linear


@pytest.mark.parametrize("quantized", [torch.float8_e4m3fn, torch.int8], ids=str)
@pytest.mark.parametrize("num_scales", [1, 3])
def test_each_row_has_its_scale_or_all_have_one(quantized: torch.dtype, num_scales: int) -> None:
    x, values = torch.randn(3, 20).mul(9).to(quantized), torch.randn(3, 20).mul(9).to(quantized)
    x_scales, scales, bias = torch.rand(num_scales), torch.rand(num_scales), torch.randn(3)
    out = scaled_linear(x, x_scales, ScaledWeight(values, scales), torch.float32, bias)
    for token in range(3):
        for output in range(3):
            sum_ = sum(float(a) * float(b) for a, b in zip(x[token], values[output], strict=True))
            scale = float(x_scales[token % num_scales]) * float(scales[output % num_scales])
            assert float(out[token, output]) == pytest.approx(
                sum_ * scale + float(bias[output]), rel=1e-5, abs=1e-4
            )


def test_each_block_has_its_scale() -> None:
    x, values = (torch.randn(n, 200).to(torch.float8_e4m3fn) for n in (2, 130))
    x_scales, scales = torch.rand(2, 2), torch.rand(2, 2)
    out = scaled_linear(x, x_scales, ScaledWeight(values, scales), torch.float32)
    products = x.double()[:, None] * values.double()[None]
    for token, output in ((0, 0), (1, 127), (0, 128), (1, 129)):
        first, second = products[token, output, :128].sum(), products[token, output, 128:].sum()
        row = scales[output // 128]
        expected = x_scales[0, token] * row[0] * first + x_scales[1, token] * row[1] * second
        torch.testing.assert_close(out[token, output].double(), expected, rtol=1e-5, atol=1e-4)
